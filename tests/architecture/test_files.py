import re
from collections.abc import Iterator

import pytest

from tests.architecture.sources import ROOT, tracked_files

TOP_LEVEL = {
    ".ci", ".gitignore", ".src", "LICENSE", "Makefile", "README.md", "consumers", "docs", "infra", "producers",
    "pyproject.toml", "requirements-dev.txt", "requirements.txt", "schemas", "tests",
    ".dockerignore", ".github", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
}  # fmt: skip

# In pieces: this file is looked through as well.
_HOSTS = [
    "pypi" + r"\.org", "python" + r"hosted\.org", "npm" + r"js\.(org|com)", r"repo1?\." + r"maven\.",
    "crates" + r"\.io",
    r"(registry-1\.|\b)docker" + r"\.io", "ghcr" + r"\.io", "quay" + r"\.io", "gcr" + r"\.io", "proxy" + r"\.golang",
]  # fmt: skip
_PLACES = [
    r"(?<![\w.~])/" + place
    for place in (r"work/(main|shared)\b", r"tmp/w/", r"root/\w", r"home/(?!some(one|body)\b)\w", r"Users/\w")
]
FORBIDDEN = re.compile("|".join(_HOSTS + _PLACES))


def forbidden(text: str) -> Iterator[str]:
    """Find hosts of package registries and paths of somebody's machine."""
    return (found.group() for found in FORBIDDEN.finditer(text))


def test_no_file_names_a_registry_or_a_path_of_somebodys_machine() -> None:
    found = {}
    for path in tracked_files():
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        if names := sorted(set(forbidden(text))):
            found[path] = names
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "https://py" + "pi.org/simple",
        "--index-url https://files.python" + "hosted.org",
        '"resolved": "https://registry.npm' + 'js.org/x"',
        "docker pull docker" + ".io/apache/kafka",
        "cd /work" + "/main",
        "open('/root" + "/x')",
        "open('/home" + "/me/x')",
    ],
)
def test_a_registry_or_a_machine_path_is_noticed(text: str) -> None:
    assert list(forbidden(text))


@pytest.mark.parametrize(
    "text", ["http://maven.apache.org/POM/4.0.0", "~/work/maintenance", "apache/kafka", "$HOME/x", "/home/someone/x"]
)
def test_what_only_looks_like_one_is_let_through(text: str) -> None:
    assert not list(forbidden(text))


def test_the_top_level_holds_only_what_the_design_lists() -> None:
    assert {path.split("/", 1)[0] for path in tracked_files()} - TOP_LEVEL == set()


def test_the_four_links_of_the_namespace_are_relative_and_lead_to_the_four_folders() -> None:
    namespace = ROOT / ".src" / "agentstream"
    links = {path.name: str(path.readlink()) for path in namespace.iterdir() if path.is_symlink()}
    assert links == {name: f"../../{name}" for name in ("schemas", "producers", "consumers", "infra")}


def test_no_file_is_large() -> None:
    # Whatever is cloned by everybody stays small; what is fetched is fetched by the bootstrap.
    large = {path: size for path in tracked_files() if (size := (ROOT / path).stat().st_size) > 512 * 1024}
    assert large == {}
