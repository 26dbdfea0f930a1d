"""Where `pi-http` finds its sidecar, and what of that is refused before anything is opened."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from agentstream.infra.connection import pi_http_token, redactor
from agentstream.infra.doctor import way_to_sidecar
from agentstream.infra.harnesses import check_kinds, http_place, is_loopback
from agentstream.infra.settings import Settings
from agentstream.infra.settings_file import SettingsError, load_settings


def settings(**more: object) -> Settings:
    return Settings.model_validate({"harnesses": ("pi-http",), **more})


def test_without_an_address_there_is_no_pi_http() -> None:
    with pytest.raises(SettingsError, match="AGENTSTREAM_PI_HTTP_URL: is not set"):
        check_kinds(settings())


@pytest.mark.parametrize("harnesses", ["pi-http", "scripted"])
@pytest.mark.parametrize("user", ["me:secret", "secret"])
def test_a_password_in_the_address_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, harnesses: str, user: str
) -> None:
    # Whether or not the harness is used: `agentstream dev` would have written it to its state file.
    monkeypatch.setenv("AGENTSTREAM_HARNESSES", harnesses)
    monkeypatch.setenv("AGENTSTREAM_PI_HTTP_URL", f"http://{user}@pi:8790")
    with pytest.raises(
        SettingsError, match="must hold no user and no password: use AGENTSTREAM_PI_HTTP_TOKEN"
    ) as refused:
        load_settings()
    assert "secret" not in str(refused.value)


def test_the_token_comes_from_the_environment_or_a_file_and_from_one_of_them(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    url = {"pi_http_url": "http://pi:8790"}
    assert http_place(settings(**url)).token is None
    assert http_place(settings(**url, pi_http_token=SecretStr("plain"))).token == "plain"
    assert http_place(settings(**url, pi_http_token_file=file)).token == "from-the-file"
    with pytest.raises(SettingsError, match="set one of them"):
        pi_http_token(settings(**url, pi_http_token=SecretStr("plain"), pi_http_token_file=file))


@pytest.mark.parametrize("content", ["", "\n", "two words", "two\nlines", "tökén", "a\x00b"])
def test_a_token_that_no_header_can_carry_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(SettingsError, match="AGENTSTREAM_PI_HTTP_TOKEN_FILE: must be one word of ASCII"):
        pi_http_token(settings(pi_http_token_file=file))


def test_the_token_is_taken_out_of_the_log() -> None:
    clean = redactor(settings(pi_http_token=SecretStr("token-of-pi-http"))).text("it said token-of-pi-http")
    assert "token-of-pi-http" not in clean


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_what_counts_as_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("url", "warned"),
    [("http://pi:8790", True), ("https://pi", False), ("http://127.0.0.1:8790", False), ("http://[::1]:8790", False)],
)
def test_doctor_warns_where_keys_travel_unencrypted(url: str, warned: bool) -> None:
    assert bool(way_to_sidecar(settings(pi_http_url=url))) is warned
