"""The robots.txt of a host is found however an address writes the host, its port and its scheme."""

import pytest

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.robots_snapshot import RobotsRule, RobotsScoring, build_robots_snapshot


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "files").mkdir()
    for name in ("example.org.txt", "xn--bcher-kva.example", "example.net:8080.txt", "8.8.4.4.txt"):
        (folder / "files" / name).write_text("User-agent: *\nDisallow: /\n")
    build_robots_snapshot(folder / "files", folder / "snapshot", "2025-01-31", progress=False)
    return str(folder / "snapshot")


def verdict(snapshot, url, **options):
    page = RawDocument("0" * 32, "Text.", "web", "a.jsonl", 1, url=url)
    (row,) = RobotsScoring(snapshot=snapshot, **options).build().score([page])
    return row["robots_state"], RobotsRule().verdict(row, {}) is not None


@pytest.mark.parametrize(
    "url",
    ["https://example.org/a", "HTTP://EXAMPLE.ORG./a", "http://example.org:80/a", "https://example.org:443/a"]
    + ["http://example.org:443/a", "https://example.org:80/a", "https://ann@example.org/a", "https:\\\\example.org\\a"]
    + [
        "https://exa\tmple.org/a",
        "https://example.org?x",
        "https://exam\u00adple.org/",
        "https://\uff45xample\uff0eorg/",
    ]
    + ["https://bücher.example", "https://BÜCHER.example.:443/", "https://b%C3%BCcher.example/"]
    + ["https://example.net:8080/", "http://8.8.4.4.:80/x", "http://８.８.４.４/"],
)
def test_a_host_written_otherwise_gets_its_robots_file(snapshot, url):
    assert verdict(snapshot, url) == ("found", True)


@pytest.mark.parametrize("url", ["https://www.example.org/", "http://example.net:8080/", "http://example.org:8080/"])
def test_another_server_is_not_answered_for(snapshot, url):
    assert verdict(snapshot, url) == ("missing", False)


@pytest.mark.parametrize("url", ["http://example.org/", "http://example.org:443/"])
def test_the_letter_of_the_standard_keeps_schemes_apart(snapshot, url):
    assert verdict(snapshot, url, any_scheme=False) == ("missing", False)
