"""What must hold of an episode before anything is written; whatever does not becomes a row in `rejected`."""

import numpy as np

from schemas.episodes import Episode
from schemas.errors import EpisodeError, RigError
from schemas.rigs import Rig


def check_episode(episode: Episode, rig: Rig) -> None:
    """Raise EpisodeError for the first thing that is wrong; RigError when rate or features are not the rig's."""
    name = episode.meta.raw_name
    if episode.rate_hz != rig.rate_hz:
        raise RigError(f"{name} is at {episode.rate_hz} Hz, the rig says {rig.rate_hz} Hz. Set rate_hz in the rig.")
    if episode.num_frames == 0:
        raise EpisodeError(f"{name}: the episode has no rows. Drop it.")
    missing = [key for key in rig.features if key not in episode.columns]
    missing += [key for key in rig.cameras if key not in episode.cameras]
    if missing:
        raise EpisodeError(f"{name}: no {', '.join(missing)}. Record it again or take it out of the rig.")
    for key, column in episode.columns.items():
        if column.ndim != 2:
            raise EpisodeError(f"{name}: {key} has shape {column.shape}, expected (rows, dims). Fix the raw file.")
        if np.issubdtype(column.dtype, np.floating) and not np.isfinite(column).all():
            row, dim = np.argwhere(~np.isfinite(column))[0]
            raise EpisodeError(
                f"{name}: {key} is {column[row, dim]} at row {row}, dimension {dim}. "
                f"Drop the episode or mend the raw file."
            )
    for key, stamps in episode.stamps_ns.items():
        if len(stamps) != episode.num_frames or np.any(np.diff(stamps) < 0):
            raise EpisodeError(f"{name}: time stamps of {key} run backwards or do not match the rows.")
