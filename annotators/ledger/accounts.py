"""Who may do what: accounts with a role, passwords as argon2 hashes, sessions that end."""

import secrets
import threading
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import Engine, delete, insert, select, update

from annotators.ledger import store
from annotators.ledger.engine import reading, writing
from annotators.ledger.tables import ACCOUNTS, SESSIONS
from schemas.errors import AccessError
from schemas.records import sha256_of

Role = Literal["viewer", "reviewer", "adjudicator", "lead"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may
SESSION_S = 12 * 3600.0  # a working day: nobody logs in twice, and a forgotten browser is shut out overnight
_LEAST_PASSWORD, _MOST_PASSWORD, _MOST_NAME = 8, 1000, 80
_FREE_TRIES = 5  # wrong passwords before one has to wait
_FIRST_WAIT_S, _LONGEST_WAIT_S = 10, 900
_hashing = threading.Semaphore(2)  # each password takes 64 MiB while it is hashed


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who logs in."""

    name: str
    role: Role

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise AccessError(f"'{self.role}' is no role. Use {', '.join(ROLES)}.")
        if not self.name.isprintable() or self.name != self.name.strip() or not 0 < len(self.name) <= _MOST_NAME:
            raise AccessError(
                f"{self.name[:40]!r} is no name: it has 1 to {_MOST_NAME} characters and no space at its ends."
            )

    def may(self, role: Role) -> bool:
        """True when this account may do what that role may."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Accounts:
    """The accounts and sessions of one ledger; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, name: str, role: Role, password: str) -> Account:
        """Make an account. Raises AccessError for a taken name, an unknown role or a weak password."""
        account = Account(name=name, role=role)
        if not _LEAST_PASSWORD <= len(password) <= _MOST_PASSWORD:
            raise AccessError(f"a password has {_LEAST_PASSWORD} to {_MOST_PASSWORD} characters. Choose another one.")
        with _hashing:
            password_hash = PasswordHasher().hash(password)
        with writing(self._engine) as connection:
            if connection.execute(select(ACCOUNTS.c.name).where(ACCOUNTS.c.name == name)).first() is not None:
                raise AccessError(f"there is an account '{name}' already. Remove it first, or choose another name.")
            values = {"created": store.now_iso(connection), "failures": 0, "locked_until_ms": 0}
            connection.execute(insert(ACCOUNTS).values(name=name, role=role, password_hash=password_hash, **values))
        return account

    def remove(self, name: str) -> None:
        """Take an account away and end its sessions; decisions keep its name. Raises AccessError for no account."""
        with writing(self._engine) as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.name == name))
            if connection.execute(delete(ACCOUNTS).where(ACCOUNTS.c.name == name)).rowcount == 0:
                raise AccessError(f"there is no account '{name}'. See dataengine review user list.")

    def all(self) -> list[Account]:
        """Every account, by name."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(ACCOUNTS.c.name, ACCOUNTS.c.role).order_by(ACCOUNTS.c.name))
            return [Account(name=row.name, role=row.role) for row in rows]

    def find(self, name: str) -> Account | None:
        """The account of that name as it is now."""
        with reading(self._engine) as connection:
            row = connection.execute(select(ACCOUNTS.c.role).where(ACCOUNTS.c.name == name)).one_or_none()
        return None if row is None else Account(name=name, role=row.role)

    def log_in(self, name: str, password: str, *, session_s: float = SESSION_S) -> str:
        """Begin a session; returns the secret that stands for it.

        Raises AccessError for a wrong name or password, and, after five in a row, for a try that comes too soon: the
        wait doubles from 10 s to 15 minutes. A try counts before it is checked, so a hundred at once gain nothing.
        """
        password_hash = self._count_try(name)
        with _hashing:
            try:
                PasswordHasher().verify(password_hash or _nobodys_hash(), password[: _MOST_PASSWORD + 1])
                is_right = password_hash is not None
            except (Argon2Error, InvalidHashError):
                is_right = False
        if not is_right:
            raise AccessError("wrong name or password. Try again, or ask your lead for a new account.")
        secret = secrets.token_urlsafe(32)
        with writing(self._engine) as connection:
            now = store.now_ms(connection)
            connection.execute(delete(SESSIONS).where(SESSIONS.c.until_ms <= now))
            free = {"failures": 0, "locked_until_ms": 0}
            is_there = connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.name == name).values(**free)).rowcount
            if not is_there:
                raise AccessError(f"the account '{name}' was removed just now. Ask your lead for a new one.")
            session = {"secret_hash": sha256_of(secret), "name": name, "until_ms": now + int(session_s * 1000)}
            connection.execute(insert(SESSIONS).values(**session))
        return secret

    def _count_try(self, name: str) -> str | None:
        """The stored hash to check against; None for a name nobody has, whose check must take as long."""
        with writing(self._engine) as connection:
            row = connection.execute(select(ACCOUNTS).where(ACCOUNTS.c.name == name).with_for_update()).one_or_none()
            if row is None:
                return None
            now = store.now_ms(connection)
            if row.locked_until_ms > now:
                wait_s = (row.locked_until_ms - now) // 1000 + 1
                raise AccessError(f"too many wrong passwords for this name. Wait {wait_s} s and try again.")
            failures = row.failures + 1
            wait_s = (
                min(_FIRST_WAIT_S * 2 ** (failures - _FREE_TRIES), _LONGEST_WAIT_S) if failures >= _FREE_TRIES else 0
            )
            counted = {"failures": min(failures, 100), "locked_until_ms": now + wait_s * 1000}
            connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.name == name).values(**counted))
            return str(row.password_hash)

    def who(self, secret: str | None) -> Account | None:
        """Whose session a secret stands for; None when it stands for none, or when it ended."""
        if not secret:
            return None
        query = select(ACCOUNTS.c.name, ACCOUNTS.c.role).join(SESSIONS, SESSIONS.c.name == ACCOUNTS.c.name)
        with reading(self._engine) as connection:
            alive = SESSIONS.c.until_ms > store.now_ms(connection)
            row = connection.execute(query.where(SESSIONS.c.secret_hash == sha256_of(secret), alive)).one_or_none()
        return None if row is None else Account(name=row.name, role=row.role)

    def log_out(self, secret: str | None) -> None:
        """End a session."""
        with writing(self._engine) as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.secret_hash == sha256_of(secret or "")))


@cache
def _nobodys_hash() -> str:
    return PasswordHasher().hash(secrets.token_urlsafe(16))
