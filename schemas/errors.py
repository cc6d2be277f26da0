"""Every error a user of this project can meet.

Each message says what is wrong, what was got, and what to do. The command line prints it as one line and exits
with 2; anything else is our bug and keeps its traceback.

* EngineError
  x UsageError         a command was asked for something that does not exist or makes no sense
  x RefError           a `name@version` is malformed or names nothing
  x ArtifactError      an artifact is damaged, or would be overwritten with something else
  x RigError           a rig file is wrong, or does not fit the data
  x SourceError        raw data cannot be read at all (a whole path, not one episode)
  x EpisodeError       one episode is bad: it becomes a row in `rejected`, the others go on
  x TransferError      a store of artifacts can not be reached, or refuses
  x RejectedError      more episodes were rejected than allowed
  x FamilyError        a task family is unknown or its files are wrong
  x BackendError       a VLM backend cannot be reached or answers nonsense
  x LedgerError        a proposal or decision does not fit the ledger
  x AccessError        someone may not do what they ask, or can not log in
  x MixError           a mix cannot be resolved as asked
  x TrainError         a training run cannot start or go on as asked
  x WireError          a message between robot and server is malformed or refused
"""

from collections.abc import Iterable
from difflib import get_close_matches


class EngineError(Exception):
    """Base of all errors that are the input's fault; one clear sentence, exit code 2."""


class UsageError(EngineError):
    """A command was asked for something that does not exist or makes no sense."""


class RefError(EngineError):
    """A `name@version` is malformed or names nothing."""


class ArtifactError(EngineError):
    """An artifact is damaged, or would be overwritten with something else."""


class RigError(EngineError):
    """A rig file is wrong, or does not fit the data."""


class SourceError(EngineError):
    """Raw data cannot be read at all."""


class EpisodeError(EngineError):
    """One episode is bad: it becomes a row in `rejected`, the others go on."""


class TransferError(EngineError):
    """A store of artifacts can not be reached, or refuses."""


class RejectedError(EngineError):
    """More episodes were rejected than `--max-rejected` allows."""


class FamilyError(EngineError):
    """A task family is unknown or its files are wrong."""


class BackendError(EngineError):
    """A VLM backend cannot be reached or answers nonsense."""


class LedgerError(EngineError):
    """A proposal or decision does not fit the ledger."""


class AccessError(EngineError):
    """Someone may not do what they ask, or can not log in."""


class MixError(EngineError):
    """A mix cannot be resolved as asked."""


class TrainError(EngineError):
    """A training run cannot start or go on as asked."""


class WireError(EngineError):
    """A message between robot and server is malformed or refused."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names what exists, nearest first: `Did you mean 'nano'? Known: chatvla2_2b, nano.`"""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    listing = f"Known: {', '.join(names)}." if names else "There are none yet."
    return f"Did you mean '{close[0]}'? {listing}" if close else listing
