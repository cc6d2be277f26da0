"""A folder of any fsspec store, with retries, and one sentence for what goes wrong there."""

import errno
import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dataengine.transfer.hub_place import is_hub, parse_hub
from dataengine.transfer.redaction import shown_url, without_secrets
from schemas.errors import EngineError, TransferError, UsageError

_WAITS_S = (0.5, 1.0, 2.0, 4.0)  # between five attempts; the clients below retry what they know on their own, too
_FINAL_STATUS = range(400, 500)  # the server understood and refuses; but for these two
_BUSY_STATUS = (408, 429)
_TRANSPORT = ("botocore", "aiobotocore", "aiohttp", "httpx", "httpcore", "requests", "urllib3", "huggingface_hub")
_READ_BYTES = 1 << 20
_NO_KEYS = ("NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError", "LocalTokenNotFoundError")


@dataclass(frozen=True, slots=True)
class Store:
    """`root` is a folder of `fs`, an fsspec file system; `url` names it to people, without user, password and query."""

    fs: Any
    root: str
    url: str

    def below(self, path: str) -> "Store":
        """A folder of this folder."""
        return Store(self.fs, f"{self.root}/{path}", f"{self.url}/{path}")

    def read(self, path: str) -> bytes | None:
        """The bytes of a small file; None where there is none."""

        def call() -> bytes | None:
            try:
                content: bytes = self.fs.cat_file(f"{self.root}/{path}")
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
            return content

        return attempt(call, f"{self.url}/{path}", "is read")

    def write(self, path: str, content: bytes) -> None:
        """Write a small file."""
        attempt(lambda: self._make_and(path, lambda to: self.fs.pipe_file(to, content)), self.url, "is written")

    def put(self, local: Path, path: str) -> str:
        """Send a file; returns the mark that the store then gives it."""

        def call() -> str:
            self._make_and(path, lambda to: self.fs.put_file(str(local), to))
            mark = _mark(self.fs.info(f"{self.root}/{path}"))
            size = local.stat().st_size
            if not mark.startswith(f"{size}:"):
                raise ConnectionError(f"{size} bytes were sent, {mark.partition(':')[0]} arrived")
            return mark

        return attempt(call, f"{self.url}/{path}", "is sent")

    def get(self, path: str, local: Path) -> bool:
        """Fetch a file; False where there is none."""

        def call() -> bool:
            try:
                self.fs.get_file(f"{self.root}/{path}", str(local))
            except (FileNotFoundError, IsADirectoryError):
                return False
            return True

        return attempt(call, f"{self.url}/{path}", "is fetched")

    def sha256(self, path: str) -> str | None:
        """Hex sha256 of the content of a file, which is read whole and kept nowhere; None where there is none."""

        def call() -> str | None:
            digest = hashlib.sha256()
            try:
                with self.fs.open(f"{self.root}/{path}", "rb") as file:
                    while some := file.read(_READ_BYTES):
                        digest.update(some)
            except (FileNotFoundError, IsADirectoryError):
                return None
            return digest.hexdigest()

        return attempt(call, f"{self.url}/{path}", "is read")

    def marks(self) -> dict[str, str]:
        """Every file of the folder, and a mark that changes when the file does: its size and its ETag or date."""

        def call() -> dict[str, str]:
            try:
                self.fs.invalidate_cache()
                found: dict[str, dict[str, Any]] = self.fs.find(self.root, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            cut = len(self.fs._strip_protocol(self.root)) + 1
            return {name[cut:]: _mark(row) for name, row in found.items()}

        return attempt(call, self.url, "is listed")

    def _make_and(self, path: str, write: Callable[[str], object]) -> None:
        """Local and network disks need the folder first; object stores have none, and may refuse to make one."""
        target = f"{self.root}/{path}"
        if "file" in _protocols(self.fs) or "memory" in _protocols(self.fs):
            self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        write(target)


def _protocols(fs: Any) -> tuple[str, ...]:  # noqa: ANN401 - fsspec has no types
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _mark(info: dict[str, Any]) -> str:
    keys = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "created", "LastModified", "last_modified")
    seen = next((info[key] for key in keys if info.get(key)), "")
    if isinstance(seen, datetime):  # a listing and a single look spell the same date in two ways
        seen = seen.timestamp()
    text = f"{seen:.6f}" if isinstance(seen, float) else str(seen).strip('"')
    return f"{info.get('size', 0)}:{text}"


def open_store(url: str, options: Mapping[str, object]) -> Store:
    """The folder that `url` names. Raises UsageError for one that no installed file system speaks."""
    import fsspec

    shown = shown_url(url)
    if "://" not in url:
        raise UsageError(f"'{shown}' is no URL. Write e.g. s3://bucket/folder, file:///mnt/disk or hf://owner/name.")
    try:
        place = parse_hub(url).fsspec_url() if is_hub(url) else url
        fs, root = fsspec.core.url_to_fs(place, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        why = without_secrets(str(error))
        raise UsageError(f"{shown} needs a package that is not installed ({why}). Install it.") from None
    except (ValueError, TypeError) as error:
        known = ", ".join(sorted(options)) or "none"
        raise UsageError(
            f"{shown} can not be opened ({without_secrets(str(error))}). Check the URL and the options ({known})."
        ) from None
    except EngineError:
        raise
    except Exception as error:
        # The boundary to file systems of all makers: some connect when they are opened, and raise their own kinds.
        raise _said(error, shown, "is opened") from error
    return Store(fs, root.rstrip("/"), shown)


def attempt[T](call: Callable[[], T], url: str, doing: str) -> T:
    """Call, again after a pause where the transport failed; at last one sentence.

    `doing` follows "while it": "is sent".
    """
    for wait in (*_WAITS_S, None):
        try:
            return call()
        except EngineError:
            raise
        except Exception as raised:
            # The boundary to file systems of all makers: each raises its own kinds.
            error = _unwrapped(raised)
            if not _is_transport(error):
                raise
            if wait is None or _is_final(error):
                raise _said(error, url, doing) from error
            time.sleep(wait * random.uniform(0.7, 1.3))  # many threads must not come back at once
    raise AssertionError("the last attempt returns or raises")


def _unwrapped(error: Exception) -> Exception:
    """The Hub's client wraps what failed in one of its threads in a RuntimeError."""
    inner = error.__cause__
    return inner if type(error) is RuntimeError and isinstance(inner, Exception) else error


def _is_transport(error: Exception) -> bool:
    if isinstance(error, OSError | TimeoutError):
        return True
    return any(kind.__module__.partition(".")[0] in _TRANSPORT for kind in type(error).__mro__)


def _status(error: Exception) -> int | None:
    """The HTTP status, where the error came with one; botocore keeps it in a dictionary, others in a field."""
    chain: list[BaseException] = [error, *([error.__cause__] if error.__cause__ else [])]
    for one in chain:
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(response, "status_code", None) or getattr(one, "status", None)
        if isinstance(status, int):
            return status
    return None


def _is_final(error: Exception) -> bool:
    """Whether trying again can not help."""
    local = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError | ValueError):
        return True
    if type(error).__name__ in (*_NO_KEYS, "OfflineModeIsEnabled", "ParamValidationError", "InvalidRegionError"):
        return True
    status = _status(error)
    if status in _FINAL_STATUS and status not in _BUSY_STATUS:
        return True
    return isinstance(error, OSError) and error.errno in local


def _said(error: Exception, url: str, doing: str) -> TransferError:
    text = without_secrets(" ".join(str(error).split()))
    short = (text if len(text) <= 160 else text[:157] + "...").rstrip(".") or type(error).__name__
    status = _status(error)
    if type(error).__name__ in _NO_KEYS:
        return TransferError(f"there are no credentials for {url} ({short}). {_keys_for(url)}")
    if isinstance(error, PermissionError) or status in (401, 403):
        return TransferError(f"{url} refuses access ({short}). {_keys_for(url)}")
    if isinstance(error, FileNotFoundError) or status == 404:
        return TransferError(f"{url} leads nowhere ({short}). Make the bucket or folder first, or correct the URL.")
    if type(error).__name__ == "OfflineModeIsEnabled":
        return TransferError(f"{url} is out of reach in offline mode. Unset HF_HUB_OFFLINE.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return TransferError(f"no place to write while {url} {doing} ({short}). Make space and run the command again.")
    return TransferError(
        f"{url} failed while it {doing} ({type(error).__name__}: {short}). Run the same command again: what has "
        f"arrived is kept."
    )


def _keys_for(url: str) -> str:
    match url.partition("://")[0]:
        case "s3" | "s3a":
            return "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or pass --option key=... --option secret=...."
        case "hf":
            return "Set HF_TOKEN to a token that may write there, or run `hf auth login`."
        case _:
            return "Check the credentials and the rights of this account."
