"""Checks of pictures: a camera that is black, washed out, or shows the same picture while the robot moves."""

from collections.abc import Iterator

import numpy as np

from dataengine.quality.camera_facts import CameraFacts, Freeze, longest_run
from dataengine.quality.facts import EpisodeFacts
from dataengine.quality.limits import QualityLimits
from dataengine.quality.recordings import STATE
from dataengine.quality.rows import QualityRow
from dataengine.quality.usual import Usual


def black_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """No camera is black for longer than a moment."""
    for key, camera in facts.cameras.items():
        if not len(camera.frames):
            continue
        frame, num = longest_run(camera.frames, camera.bright <= limits.black_level)
        seconds = num / facts.rate_hz
        bad = seconds > limits.camera_s or num >= facts.num_frames > 0
        yield QualityRow(
            episode_id=facts.episode_id,
            check="black_camera",
            stream=key,
            verdict="fail" if bad else "pass",
            value=seconds,
            limit=limits.camera_s,
            unit="s",
            detail=f"for {seconds:.1f} s from row {frame}" if bad else "",
            frame=frame if bad else None,
            num_frames=max(1, num),
        )


def washed_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """No camera is far whiter than it usually is, or shows one even colour, for longer than a moment."""
    for key, camera in facts.cameras.items():
        if not len(camera.frames):
            continue
        white = camera.white > min(0.99, usual.white.get(key, 0.0) + limits.washed_share)
        even = (camera.contrast < limits.washed_contrast) & (camera.bright > limits.black_level)
        frame, num = longest_run(camera.frames, white | even)
        seconds = num / facts.rate_hz
        bad = seconds > limits.camera_s or num >= facts.num_frames > 0
        yield QualityRow(
            episode_id=facts.episode_id,
            check="washed_out_camera",
            stream=key,
            verdict="fail" if bad else "pass",
            value=seconds,
            limit=limits.camera_s,
            unit="s",
            detail=f"for {seconds:.1f} s from row {frame}" if bad else "",
            frame=frame if bad else None,
            num_frames=max(1, num),
        )


def frozen_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """No camera shows the same picture for long while the robot moves."""
    for key, camera in facts.cameras.items():
        if STATE not in usual.episode_ranges or not usual.moving.any():
            yield QualityRow(
                episode_id=facts.episode_id,
                check="frozen_camera",
                stream=key,
                verdict="unknown",
                detail="whether the robot moves is not known",
            )
            continue
        worst = _longest_with_motion(camera, usual, limits)
        seconds = worst.num_frames / facts.rate_hz if worst else 0.0
        bad = seconds > limits.frozen_s
        yield QualityRow(
            episode_id=facts.episode_id,
            check="frozen_camera",
            stream=key,
            verdict="fail" if bad else "pass",
            value=seconds,
            limit=limits.frozen_s,
            unit="s",
            detail=f"for {seconds:.1f} s from row {worst.frame}" if bad and worst else "",
            frame=worst.frame if bad and worst else None,
            num_frames=worst.num_frames if worst else 1,
        )


def _longest_with_motion(camera: CameraFacts, usual: Usual, limits: QualityLimits) -> Freeze | None:
    ranges = usual.episode_ranges[STATE]
    moves = usual.moving & (ranges > 0)
    for freeze in camera.freezes:  # the longest comes first
        share = np.divide(freeze.moved, ranges, out=np.zeros_like(ranges), where=moves)
        inside = (camera.frames >= freeze.frame) & (camera.frames <= freeze.frame + freeze.num_frames)
        # a camera that shows nothing is told of by its own check
        seen = (camera.bright[inside] > limits.black_level) & (camera.contrast[inside] >= limits.washed_contrast)
        if share.max() >= limits.frozen_motion and seen.any():
            return freeze
    return None
