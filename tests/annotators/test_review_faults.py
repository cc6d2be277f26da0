"""What a review withstands: a page that is killed while people decide, a disk that is full."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_rows import claimed, decide, fill

from annotators.ledger import Ledger
from benchmarks import review_data, review_http
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.errors import LedgerError
from schemas.refs import Ref

EPISODES = Ref("tiny", "1")


@pytest.mark.slow
def test_a_page_that_is_killed_under_load_loses_nothing_and_doubles_nothing(
    tiny: Workspace, url: str, tmp_path: Path
) -> None:
    Ledger.open(url).close()
    review_data.fill(url, 300, episode_ids=EpisodeSet.open(tiny, EPISODES).ids())
    names = review_http.add_people(url, 4)
    load = review_http.HttpLoad(num_people=4, think_s=0.2, seconds=30, num_episodes=1, num_frames=20, num_items=300)
    seen: list[review_http.Seen] = []
    with Ledger.open(url) as ledger:
        with review_http.served(tiny, EPISODES, url, tmp_path / "first.log") as server:
            people = threading.Thread(target=lambda: seen.append(review_http.work(server.address, names, load)))
            people.start()
            while ledger.progress().num_done < 12:
                assert people.is_alive(), seen
                time.sleep(0.02)
            server.process.send_signal(signal.SIGKILL)
            people.join(90)
        before = [row.item_id for row in ledger.decisions()]
        assert seen[0].errors  # people noticed
        with review_http.served(tiny, EPISODES, url, tmp_path / "second.log") as server:
            calm = review_http.HttpLoad(
                num_people=4, think_s=0.2, seconds=10, num_episodes=1, num_frames=20, num_items=300
            )
            after = review_http.work(server.address, names, calm)
        held = [row.item_id for row in ledger.decisions()]
        assert after.errors == []
        assert len(after.acknowledged) > 0
        assert set(seen[0].acknowledged) <= set(before)
        assert len(before) - len(seen[0].acknowledged) <= len(names)  # stored, and the answer did not arrive
        assert set(after.acknowledged) <= set(held)
        assert len(held) == len(set(held))
        assert ledger.audit().problems == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Six megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small disk can not be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_a_decision_in_a_sentence_and_loses_none(small_disk: Path) -> None:
    with Ledger.open(f"sqlite:///{small_disk / 'ledger.db'}") as ledger:
        fill(ledger, 150)
        with (small_disk / "others").open("wb", buffering=0) as others:
            try:
                while True:
                    others.write(bytes(4096))
            except OSError:
                pass
        made = []
        with pytest.raises(LedgerError, match=r"is full, so nothing was saved\. Make room"):
            for number in range(150):
                item = claimed(ledger)
                made.append(decide(ledger, item, "accept", f"k {number}"))
        assert ledger.decisions() == made
        (small_disk / "others").unlink()
        again = decide(ledger, claimed(ledger), "accept", f"k {len(made)}")
        assert ledger.decisions() == [*made, again]
        assert ledger.audit().problems == ()
