"""URLs without what nobody else may see: users, passwords, and queries, which carry signatures and tokens."""

import re

_USERINFO = re.compile(r"://[^/\s]*@")
_SLASHED_PASSWORD = re.compile(r"://[^/\s:@]+:(?!\d+/)[^\s@]*@")  # user:pa/ss@host, which no parser takes
_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\"<>)\]]*")
_LOOSE_QUERY = re.compile(r"\?[^\s?'\"=]+=[^\s'\"<>)\]]*")  # clients quote "/path?key=value" without a host, too


def without_secrets(text: str) -> str:
    """A sentence of someone's client with every URL in it cut to scheme, host and path."""
    for pattern in (_SLASHED_PASSWORD, _USERINFO):
        text = pattern.sub("://", text)
    return _LOOSE_QUERY.sub("", _QUERY.sub(r"\1", text))


def shown_url(url: str) -> str:
    """A URL as people and logs may see it; also a chain of them (`simplecache::sftp://...`)."""
    links = []
    for link in url.split("::"):
        bare = link.partition("?")[0]
        scheme, found, rest = bare.partition("://")
        if not found:
            links.append(re.sub(r"^[^/@]*:[^/]*@", "", bare))
            continue
        rest = _SLASHED_PASSWORD.sub("://", f"://{rest}").removeprefix("://")
        host, slash, path = rest.partition("/")
        links.append(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}")
    return "::".join(links).rstrip("/")
