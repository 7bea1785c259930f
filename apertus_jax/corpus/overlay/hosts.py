"""Hosts of the synthetic crawl under reserved names, and what each says about crawlers."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from etils import epath

FETCHED_AT = "2025-01-15T00:00:00Z"
OPEN_ROBOTS = (
    "# Everybody is welcome.\nUser-agent: *\nDisallow: /search\nAllow: /\n\nSitemap: https://{host}/sitemap.xml\n"
)
HTML_PAGE = (
    "<!DOCTYPE html>\n<html><head><title>Not found</title></head>\n"
    "<body><p>The page that you were looking for is not here.</p></body></html>\n"
)


@dataclasses.dataclass(frozen=True)
class Host:
    """A host and its robots.txt: a body with status 200, or a status or error without one; neither: never asked."""

    name: str
    robots: str | None = None
    status: int | None = None
    error: str = ""


OPEN_HOSTS = tuple(
    Host(name, OPEN_ROBOTS.format(host=name))
    for name in (
        "www.willowgate.example", "news.willowgate.example", "harbour-post.example", "lindenblatt.test",
        "le-moulin.example", "la-plaza.example", "il-cortile.test", "de-sluis.example", "a-praca.test",
        "xn--80aaaabn5clcty3a.example", "copper-kettle.invalid", "xn--bcherwald-q9a.example",
    )
)  # fmt: skip
NO_FILE = Host("quiet-garden.example", status=404)
NEVER_ASKED = Host("unlisted-lane.test")
NO_GPTBOT = Host(
    "gazette.copperfield.example",
    "User-agent: *\nAllow: /\n\nUser-agent: GPTBot\nUser-agent: CCBot\nDisallow: /\n",
)
NO_ROBOTS = Host("archive.silentmill.invalid", "User-agent: *\nDisallow: /\n")
NO_MEMBERS = Host("forum.lanternbay.test", "User-agent: *\nDisallow: /members/*/letters$\nDisallow: /private\n")
SERVER_ERROR = Host("tidewater.example", status=503)
NO_ANSWER = Host("stormglass.invalid", error="timeout")
HTML_ANSWER = Host("puppetry.test", HTML_PAGE)
CONTENT_SIGNAL = Host("orchard-times.example", "User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /\n")
CONTENT_USAGE = Host("glass-almanac.test", "User-agent: *\nContent-Usage: train-ai=n\nAllow: /\n")
TDM_FILE = Host("cartographers.example", OPEN_ROBOTS.format(host="cartographers.example"))
REMOVED_HOST = Host("diary.rosehip.example", OPEN_ROBOTS.format(host="diary.rosehip.example"))
REMOVED_DOMAIN = (
    Host("www.familytree.test", OPEN_ROBOTS.format(host="www.familytree.test")),
    Host("photos.familytree.test", OPEN_ROBOTS.format(host="photos.familytree.test")),
)
HOSTS = (
    *OPEN_HOSTS, NO_FILE, NEVER_ASKED, NO_GPTBOT, NO_ROBOTS, NO_MEMBERS, SERVER_ERROR, NO_ANSWER, HTML_ANSWER,
    CONTENT_SIGNAL, CONTENT_USAGE, TDM_FILE, REMOVED_HOST, *REMOVED_DOMAIN,
)  # fmt: skip
TDM_RULES = [
    {"location": "/open/*", "tdm-reservation": 0},
    {"location": "/", "tdm-reservation": 1, "tdm-policy": "https://cartographers.example/policy.json"},
]


def write_robots(folder: epath.Path) -> None:
    """Writes a folder of robots.txt files with its index, as `robots-snapshot` reads it."""
    folder.mkdir(parents=True)
    lines = []
    for host in HOSTS:
        if host == NEVER_ASKED:
            continue
        entry: dict[str, Any] = {"host": host.name, "fetched_at": FETCHED_AT}
        if host.robots is not None:
            entry |= {"file": f"{host.name}.txt", "http_status": 200}
            (folder / entry["file"]).write_text(host.robots)
        elif host.error:
            entry["error_kind"] = host.error
        else:
            entry["http_status"] = host.status
        lines.append(json.dumps(entry, sort_keys=True) + "\n")
    (folder / "index.jsonl").write_text("".join(lines))


def write_tdmrep(folder: epath.Path) -> None:
    """Writes the collected `tdmrep.json` files, named by host."""
    folder.mkdir(parents=True)
    (folder / f"{TDM_FILE.name}.json").write_text(json.dumps(TDM_RULES, indent=1) + "\n")
