"""A task family is a folder: one of the user's own works like those that ship."""

import shutil
from pathlib import Path

import pytest

import annotators.families as shipped
from annotators.families import families, load_family
from schemas.errors import FamilyError

HOME = Path(shipped.__file__).parent


def test_a_folder_of_ones_own_is_a_family_with_its_own_name_prompts_and_hash(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(HOME / "math-matching", mine)
    (mine / "board.md").write_text("Copy the writing.\n")
    (mine / "family.yaml").write_text((mine / "family.yaml").read_text().replace("name: math-matching", "name: mine"))
    family = load_family(str(mine))
    assert family.label == "mine@1"
    assert family.prompts["board"] == "Copy the writing.\n"
    assert family.prompt_hash != load_family("math-matching").prompt_hash
    assert "mine" not in families()


def test_a_folder_without_a_family_and_one_with_a_wrong_word_say_so(tmp_path: Path) -> None:
    with pytest.raises(FamilyError, match=r"holds no family\.yaml"):
        load_family(f"{tmp_path}/")
    (tmp_path / "family.yaml").write_text("name: a\nversion: 1\nabout: b\nfields: [traces]\n")
    with pytest.raises(FamilyError, match=r"fields\.0: .*Mend its family\.yaml"):
        load_family(str(tmp_path))
