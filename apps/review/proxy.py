"""Logins made by a proxy in front of the page: it names the person in a header, and proves that it is the proxy."""

import hmac
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from schemas.errors import UsageError

SECRET_HEADER = "X-Review-Proxy-Secret"
_LEAST_SECRET = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Which header holds the name, and the secret that only the proxy knows.

    The address of a caller proves nothing: everybody on the proxy's machine has it too.
    """

    header: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.header.isascii() or not self.header.replace("-", "").isalnum():
            raise UsageError(f"'{self.header}' is no name of a header. Use one such as X-Forwarded-User.")
        if self.header.lower() == SECRET_HEADER.lower():
            raise UsageError(f"{SECRET_HEADER} holds the secret, so the name needs another header.")
        if len(self.secret) < _LEAST_SECRET or not self.secret.isascii():
            raise UsageError(f"the proxy's secret needs {_LEAST_SECRET} plain characters or more. Choose a longer one.")

    @classmethod
    def read(cls, header: str, secret_file: Path) -> "Proxy":
        """With the secret in a file. Raises UsageError when it can not be read."""
        try:
            secret = secret_file.read_text().strip()
        except (OSError, ValueError) as error:
            raise UsageError(f"the proxy's secret can not be read from '{secret_file}' ({error}).") from None
        return cls(header=header, secret=secret)

    def name_of(self, request: Request) -> str | None:
        """Whom the proxy names; None for what did not come through it, and where a second name was slipped in."""
        secrets, names = (request.headers.getlist(name) for name in (SECRET_HEADER, self.header))
        if len(secrets) != 1 or not hmac.compare_digest(secrets[0].encode(), self.secret.encode()):
            return None
        if request.method != "GET" and request.headers.get("sec-fetch-site") == "cross-site":
            return None  # another web page speaks through the browser of somebody whom the proxy knows
        return names[0] if len(names) == 1 else None
