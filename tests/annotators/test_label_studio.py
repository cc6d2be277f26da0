"""What the benchmark beside Label Studio hands over, in that tool's own way of counting frames."""

from benchmarks.label_studio import Labelled


def test_frames_count_from_one_there_and_the_last_one_is_inside() -> None:
    said = Labelled(board="4+1", solution="4+1=5", segments=((0, 50, "reach"), (50, 120, "carry")))
    ranges = [part["value"]["ranges"][0] for part in said.result() if part["type"] == "timelinelabels"]
    assert ranges == [{"start": 1, "end": 50}, {"start": 51, "end": 120}]
    assert Labelled.read(said.result()) == said
