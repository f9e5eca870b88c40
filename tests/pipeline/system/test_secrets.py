"""Passwords and keys are hidden wherever they are, and nothing else is."""

import pytest

from pipeline.system.secrets import hide_secret, hide_secrets, hide_secrets_in_code

LONG = "0123456789abcdefABCDEF0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("postgresql://me:secret@db:5432/m", "postgresql://me:***@db:5432/m"),
        ("http://me:a@b@c@host/", "http://me:***@host/"),
        ("http://me:a/b?c#d@host", "http://me:***@host"),
        ("http://me:two words@host", "http://me:***@host"),
        ("http://me:12345@host:5000", "http://me:***@host:5000"),
        ("'http://:only@host'", "'http://:***@host'"),
        (f"https://{LONG}@host/x", "https://***@host/x"),
        (
            "postgresql://h/db?user=me&password=p@s/w&z=1",
            "postgresql://h/db?user=me&password=***&z=1",
        ),
        (
            "mssql:///?odbc_connect=UID%3Dme%3BPWD%3Ds3cret%3BX%3D1",
            "mssql:///?odbc_connect=UID%3Dme%3BPWD%3D***%3BX%3D1",
        ),
        ("env.WANDB_API_KEY=abc", "env.WANDB_API_KEY=***"),
        ("env={WANDB_API_KEY: abc, B: 1}", "env={WANDB_API_KEY: ***, B: 1}"),
        ('{"hf_token": "a b", "n": 1}', '{"hf_token": "***", "n": 1}'),
        ("export MYSQL_PWD=abc; run", "export MYSQL_PWD=***; run"),
        ("password: 1234", "password: ***"),
        ("a: 1\nmy_token: two words\nb: 2", "a: 1\nmy_token: ***\nb: 2"),
        ("{my_token: abc}", "{my_token: ***}"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        (f"key hf_{LONG} of ours", "key *** of ours"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest",
            "***\nrest",
        ),
    ],
)
def test_a_secret_is_hidden_and_the_rest_stays(text: str, public: str) -> None:
    assert hide_secrets(text) == public
    assert hide_secrets(public) == public


@pytest.mark.parametrize(
    "text",
    [
        "http://db:5000/x@y",
        "see http://db:5000 or mail me@host",
        "ssh://git@host:22/x",
        "tcp://127.0.0.1:29500",
        "sqlite:////home/me/mlflow.db",
        "TOKENIZERS_PARALLELISM=false",
        "MAX_TOKEN=512",
        "HF_TOKEN_PATH=/home/me/token",
        "export HF_TOKEN=$(cat ~/.token)",
        "PWD=/home/me",
        "optim.lr=0.1",
        "my.yaml:3:2: env.MY_TOKEN: must be text",
        "runs/tiny-sweep-1a2b3c/lr=0.1_seed=0",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert hide_secrets(text) == text


def test_the_name_of_a_setting_decides() -> None:
    assert hide_secret("WANDB_API_KEY", "abc") == "***"
    assert hide_secret("NAME", "abc") == "abc"
    assert hide_secret("http_proxy", "http://me:abc@proxy:80") == "http://me:***@proxy:80"


def test_code_keeps_its_variables() -> None:
    code = "token = read()  # as in http://me:abc@host"
    assert hide_secrets_in_code(code) == code.replace("abc", "***")
    assert hide_secrets_in_code('token = "abc"') == 'token = "***"'
