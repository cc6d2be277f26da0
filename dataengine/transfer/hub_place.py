"""How a place on the Hugging Face Hub is written."""

import re
from dataclasses import dataclass

from dataengine.transfer.redaction import shown_url
from schemas.errors import UsageError

_URL = re.compile(
    r"hf://(?:datasets/)?(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^/@]+))?(?:/(?P<path>[^@]+?))?/?", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubPlace:
    """A folder of a dataset repository: `hf://OWNER/NAME[@TAG][/PATH]`."""

    repo: str
    path: str = ""
    revision: str | None = None

    def url(self, revision: str | None = None) -> str:
        """How people write it."""
        at = f"@{revision or self.revision}" if revision or self.revision else ""
        return f"hf://{self.repo}{at}" + (f"/{self.path}" if self.path else "")

    def fsspec_url(self) -> str:
        """How the Hub's fsspec file system writes it."""
        return self.url().replace("hf://", "hf://datasets/", 1)

    def inside(self, path: str) -> str:
        """The path of a file in the repository."""
        return f"{self.path}/{path}" if self.path else path


def is_hub(url: str) -> bool:
    """Whether a URL names the Hugging Face Hub."""
    return url.startswith("hf://")


def parse_hub(url: str) -> HubPlace:
    """Read `hf://OWNER/NAME[@TAG][/PATH]`. Raises UsageError."""
    match = _URL.fullmatch(url)
    if match is None or ".." in url:
        raise UsageError(
            f"'{shown_url(url)}' is no repository. Write hf://OWNER/NAME, or hf://OWNER/NAME@VERSION to pull."
        )
    return HubPlace(repo=match["repo"], path=match["path"] or "", revision=match["revision"])
