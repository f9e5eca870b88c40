"""Recognises passwords and keys in text, so that they are neither stored nor shown."""

import re
from collections.abc import Sequence

HIDDEN = "***"

_TOKENS = re.compile(
    r"\b(?:gh[oprsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_\w{20,}|sk-[\w-]{20,}"
    r"|xox[a-z]-[\w-]{10,}|AKIA[0-9A-Z]{16}|dapi[0-9a-f]{32}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*)"
)
"""Keys of well-known services, which have a form of their own."""
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)

# A password may itself contain @ or /; digits before a / are a port.
_IN_URI = re.compile(
    r"(://[^\s/?#@:]*):(?!\d{1,5}(?:[/?#\s\"')\]>]|$))(?:\S*|[^\n]*)@", re.MULTILINE
)
_AS_USER = re.compile(r"(https?://)[^\s/?#@:]+@")
"""A key in place of the user."""

_NAMES = (
    r"(?:passw(?:or)?d|passphrase|secret|token|jwt|(?:api|access|account|private|secret)_?key"
    r"|[_-](?:key|pwd|pass)|(?:[?&;]|%26|%3b)(?:pwd|pass)|authorization)"
)
_PROSE = r"\s*(?!basic|bearer)\w[^\s,}\]]*[ \t]+[^\s#]"
"""Several words after a colon: a sentence, and not a value."""
_NAMED = re.compile(
    rf"({_NAMES}[\"']?\s*(?:=|%3d|:(?!{_PROSE}))\s*[\"']?(?:(?:basic|bearer)\s+)?)"
    r"(?!\*\*\*|\$|[\s\"']|(?:basic|bearer)\s)"
    r"((?<=\")[^\"\n]+|(?<=')[^'\n]+|(?:(?!%26|%3b)[^\s\"'&;,)\]}])+)",
    re.IGNORECASE,
)
"""The value of a setting with a name such as WANDB_API_KEY, in YAML, JSON, a URI or a command."""
_LINE = re.compile(rf"^([ \t+-]*[\w.-]*{_NAMES}:[ \t]+)(\w.*)", re.IGNORECASE)
"""The same on a line of YAML, where a value may be several words."""
_LITERAL = re.compile(rf"({_NAMES}[\"']?\s*[:=]\s*[\"'])([^\"'\n]+)", re.IGNORECASE)
"""The same in quotes."""
_HINTS = (
    *("pass", "secret", "token", "jwt", "key", "pwd", "authorization"),
    *("gho_", "ghp_", "ghr_", "ghs_", "ghu_", "_pat_", "glpat-", "hf_", "sk-", "xox", "akia"),
    *("dapi", "eyj"),
)
"""A line without any of these has no secret; a quick test."""
_HARMLESS = re.compile(r"true|false|yes|no|on|off|null|none|\d{1,4}", re.IGNORECASE)
"""A switch or a count: MAX_TOKEN=512."""


def hide_secrets(text: str) -> str:
    """Return `text` with *** in place of passwords and keys.

    These are passwords in URIs, keys of well-known services, and values of settings whose name ends
    with password, secret, token, key or the like.
    """
    return _hide(text, (_LITERAL, _LINE, _NAMED))


def hide_secrets_in_code(text: str) -> str:
    """Hide secrets in URIs, in quotes and of a known form: code has variables called `token`."""
    return _hide(text, (_LITERAL,))


def hide_secret(name: str, value: str) -> str:
    """Return the value of the setting `name`, with *** in place of passwords and keys."""
    whole = hide_secrets(f"{name}={value}")
    return whole.removeprefix(f"{name}=")


def _hide(text: str, settings: Sequence[re.Pattern[str]]) -> str:
    text = _AS_USER.sub(rf"\1{HIDDEN}@", _IN_URI.sub(rf"\1:{HIDDEN}@", text))
    text = _PRIVATE_KEY.sub(HIDDEN, text)
    return "\n".join(_hide_in_line(line, settings) for line in text.split("\n"))


def _hide_in_line(line: str, settings: Sequence[re.Pattern[str]]) -> str:
    small = line.lower()
    if not any(hint in small for hint in _HINTS):
        return line
    line = _TOKENS.sub(HIDDEN, line)
    for setting in settings:
        line = setting.sub(_hide_value, line)
    return line


def _hide_value(setting: re.Match[str]) -> str:
    name, value = setting.groups()
    harmless = "pass" not in name.lower() and _HARMLESS.fullmatch(value)
    return setting[0] if harmless else f"{name}{HIDDEN}"
