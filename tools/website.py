"""Build both editions of the website into one folder, and serve it.

python tools/website.py build            _build/site/{en,zh}; only what changed is built again
python tools/website.py serve [--port N] the same, then serve it on this computer
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "site"
SOURCES = {"en": ROOT, "zh": ROOT / "zh"}


def build_edition(edition: str) -> int:
    """Build one edition as `jupyter-book build -W -n --keep-going` does, into ``_build/site/<edition>``."""
    from jupyter_book.sphinx import build_sphinx

    source, doctrees = SOURCES[edition], ROOT / "_build" / "doctrees" / edition
    toc = {"external_toc_path": (source / "_toc.yml").as_posix(), "latex_individualpages": False}
    failed = build_sphinx(
        source,
        SITE / edition,
        doctreedir=doctrees,
        path_config=source / "_config.yml",
        noconfig=True,
        confoverrides=toc | {"nitpicky": True},
        warningiserror=True,
        keep_going=True,
        quiet=True,
    )
    if failed:  # else the next build would take the page for built, and pass
        (doctrees / "environment.pickle").unlink(missing_ok=True)
    return int(bool(failed))


def build() -> None:
    """Build both editions side by side, one build at a time; SystemExit with one sentence when one fails."""
    start = time.perf_counter()
    SITE.parent.mkdir(exist_ok=True)
    with FileLock(SITE.parent / "build.lock"):
        runs = {edition: subprocess.Popen([sys.executable, __file__, "edition", edition]) for edition in SOURCES}
        failed = [edition for edition, run in runs.items() if run.wait() != 0]
    if failed:
        sys.exit(f"llmbook: the site was not built: edition {' and '.join(failed)} has the errors printed above.")
    shutil.copy(ROOT / "book" / "site" / "assets" / "index.html", SITE / "index.html")
    print(f"Built {SITE.relative_to(ROOT)} in {time.perf_counter() - start:.0f} s")


class Handler(SimpleHTTPRequestHandler):
    """Static files, never cached, so that a rebuilt page shows; no line for each request."""

    def end_headers(self) -> None:
        """Add the header that makes the browser ask again."""
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def server(port: int) -> ThreadingHTTPServer:
    """A server of the built site on this computer only; port 0 takes any free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(SITE)))


def serve(port: int) -> None:
    """Build, then serve until interrupted."""
    try:
        httpd = server(port)
    except PermissionError:
        sys.exit(f"llmbook: this user may not serve on port {port}; choose one above 1023: make serve PORT=8000")
    except OSError:
        sys.exit(f"llmbook: port {port} is taken; choose another: make serve PORT={port + 1}")
    except OverflowError:
        sys.exit(f"llmbook: {port} is no port; expected a number from 1 to 65535.")
    with httpd:
        build()
        print(f"The book is at http://localhost:{httpd.server_port}/ (Ctrl-C stops the server)", flush=True)
        try:
            httpd.serve_forever()
        except KeyboardInterrupt:
            print()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build")
    commands.add_parser("serve").add_argument("--port", type=int, default=8000)
    commands.add_parser("edition").add_argument("edition", choices=SOURCES)
    args = parser.parse_args()
    if args.command == "edition":
        return build_edition(args.edition)
    build() if args.command == "build" else serve(args.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
