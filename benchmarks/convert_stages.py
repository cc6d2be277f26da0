"""Parts of a conversion that are timed alone: what workers do, and what lies between finding and publishing."""

from functools import partial
from pathlib import Path

from dataengine.convert import JPEG_QUALITY
from dataengine.executor import for_each_episode
from dataengine.rig_files import load_rig
from dataengine.sinks import zarr_frames
from dataengine.sinks.shard_plan import ShardPlan
from dataengine.sinks.staging import StageFrames, StageJob, StageVideos, boot_id, load_staged
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sources import Source, open_source
from dataengine.sources.copying import read_copying, shard_plan
from dataengine.sources.sizes import raw_bytes
from schemas.episodes import Rejected


def write_shards(raw: Path, place: Path) -> None:
    """What the command does between finding the episodes and publishing the store."""
    source = open_source(raw, load_rig("aloha_sim"))
    job = StageFrames(root=place / "staging", frame_size=None, quality=JPEG_QUALITY, boot=boot_id())
    job.root.mkdir()
    names = source.names()
    plan = shard_plan(source, dict.fromkeys(names, ""), (job,))
    if plan is not None:
        plan.prepare()
    _stage(source, job, plan, workers=None)
    staged = [row for name in names if (row := load_staged(job.root, name))]
    recipe = zarr_frames.frame_recipe(source.rig, None, JPEG_QUALITY)
    (place / "store").mkdir()
    zarr_frames.commit(place / "store", staged, source.rig, recipe)


def stage_numbers(raw: Path, rig: Path, place: Path, *, workers: int) -> None:
    """What workers do of episodes without cameras."""
    source = open_source(raw, load_rig(str(rig)))
    job = StageVideos(root=place / "staging", encoding=VideoEncoding(), encoder_threads=1, boot=boot_id())
    job.root.mkdir()
    _stage(source, job, None, workers=workers)


def _stage(source: Source, job: StageJob, plan: ShardPlan | None, *, workers: int | None) -> None:
    task = partial(_stage_one, source, job, plan)
    results = for_each_episode(task, source.names(), workers=workers, num_bytes=raw_bytes(source), disk=job.root)
    for name, result in results:
        if isinstance(result, Rejected):
            raise RuntimeError(f"{name} was rejected: {result.reason}")


def _stage_one(source: Source, job: StageJob, plan: ShardPlan | None, name: str) -> None:
    stage_episode(read_copying(source, name, plan), name, source.rig, (job,), stamp="")
