"""The shape of the project: five packages, imports one way, light start, names that nobody else claims."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "dataengine", "annotators", "trainers", "apps")


def test_no_other_distribution_claims_one_of_the_five_names() -> None:
    owners = packages_distributions()
    for name in PACKAGES:
        assert set(owners.get(name, [])) <= {"vla-dataengine"}, name


def test_tests_are_never_shipped() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'packages = ["schemas", "dataengine", "annotators", "trainers", "apps"]' in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['dataengine', '--help']\n"
        "from apps.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch','ray','gradio','lerobot','mujoco','transformers','av','zarr','h5py','pandas','sqlalchemy'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in out


def test_schemas_import_only_light_libraries() -> None:
    code = (
        "import pkgutil, importlib, sys, schemas\n"
        "for module in pkgutil.iter_modules(schemas.__path__): importlib.import_module(f'schemas.{module.name}')\n"
        "print('HEAVY', sorted({'torch','ray','zarr','lerobot','gradio','h5py','pandas'} & set(sys.modules)))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in out


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "misc", "manager"])
def test_there_is_no_drawer(word: str) -> None:
    assert not [
        path for package in PACKAGES for path in (ROOT / package).rglob(f"*{word}*") if "__pycache__" not in str(path)
    ]


def test_the_lock_pins_by_hash_and_names_no_index() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert not [line for line in lines if "://" in line or line.startswith(("-i", "--index", "--extra"))]
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert pins
    assert all("==" in line and line.endswith("\\") for line in pins)


def test_sources_name_no_path_of_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    forbidden = ("/wo" + "rk/", "/ro" + "ot/", "pypi" + ".org")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".sh", ".lock"} and path.is_file():
            text = path.read_text()
            assert not [word for word in forbidden if word in text], name
