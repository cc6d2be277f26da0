"""Who may open the review page: this machine without a password, other machines only with one."""

import ipaddress
from pathlib import Path

from schemas.errors import UsageError

_LEAST_PASSWORD = 8
Login = tuple[str, str]  # name, password


def read_logins(path: Path) -> list[Login]:
    """One `name:password` per line; empty lines are skipped. Raises UsageError, which never quotes a password."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file of logins '{path}' can not be read ({error}). Check the path.") from None
    logins: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, colon, password = line.strip().partition(":")
        if not colon or not name.strip() or len(password) < _LEAST_PASSWORD:
            raise UsageError(
                f"'{path.name}' line {number} is no name:password with {_LEAST_PASSWORD} or more characters after the "
                "colon. Write e.g. alice:PASSWORD."
            )
        if name.strip() in logins:
            raise UsageError(f"'{path.name}' line {number} names '{name.strip()}' again. Keep one line per name.")
        logins[name.strip()] = password
    if not logins:
        raise UsageError(f"'{path.name}' holds no login. Write one name:password per line.")
    return list(logins.items())


def check_host(host: str, logins: list[Login] | None) -> None:
    """Raises UsageError for a host that other machines can reach while nobody has to log in."""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback and not logins:
        raise UsageError(
            f"host '{host}' can be reached from other machines, and without logins anybody could decide in anybody's "
            "name. Give --auth FILE with name:password lines, or stay on 127.0.0.1."
        )
