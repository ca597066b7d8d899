"""The Hub: models are pushed to one on this computer, pulled from it, and found in its cache without it."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fcnseg.errors import InputError
from fcnseg.models import FCN
from fcnseg.models.loading import from_pretrained
from tests.models.stored import assert_equal, edit, front_matter


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's protocol as a push and a download use; everything lies in `files`, in one commit."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    commit = "c0ffee" * 6 + "cafe"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.answer({"url": f"http://{self.headers['Host']}/user/name"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/user/name/commit/{self.commit}"
            self.answer({"commitUrl": url, "commitOid": self.commit, "success": True})
        else:
            self.answer({})

    def do_GET(self) -> None:
        repository, name = self.path.split("?")[0].removeprefix("/api/models/").strip("/").split("/")[:2]
        file = self.path.split("/")[-1] if "/resolve/" in self.path else None
        if (repository, name) not in (("user", "name"), ("user", "empty"), ("user", "other")):
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif "nowhere" in self.path:
            self.answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif file is None:
            self.answer({"id": f"{repository}/{name}", "sha": self.commit, "siblings": []})
        elif name == "other" and file == "config.json":
            self.answer(b'{"library": "other"}', 200, {"ETag": '"1"', "X-Repo-Commit": self.commit})
        elif name != "name":
            self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        else:
            self.answer(self.files[file], 200, {"ETag": f'"{file}-1"', "X-Repo-Commit": self.commit})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.files.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def elsewhere(code: str, cwd: Path, **environment: str) -> str:
    """What code prints in a process of its own; huggingface_hub reads its environment once, at import."""
    settings = {"HF_HOME": str(cwd / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "hf_test", **environment}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | settings
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


PUSH = """
import sys
from fcnseg.models.sources import DEMO
from fcnseg import from_pretrained
model = from_pretrained("model")
model.push_to_hub("user/name", license="mit")
from_pretrained("user/name").save_pretrained("pulled")
for source, revision in [("user/name", "nowhere"), ("user/none", None), ("user/empty", None), ("user/other", None)]:
    try:
        from_pretrained(source, revision=revision)
    except ValueError as error:
        print(error)
"""


PULL = """
from fcnseg.models.sources import DEMO
from fcnseg import from_pretrained
from_pretrained("user/name").save_pretrained("from_cache")
try:
    from_pretrained("user/none")
except ValueError as error:
    print(error)
"""


def test_push_to_the_hub_and_pull_from_it_and_then_from_the_cache(
    model: FCN, folder: Path, tmp_path: Path, hub: str
) -> None:
    lines = elsewhere(PUSH, tmp_path, HF_ENDPOINT=hub).splitlines()
    assert lines[:3] == [
        "user/name: no such file or folder, and the model on the Hub has no revision nowhere",
        "user/none: no such file or folder, and the Hub has no such model, or it is private",
        "user/empty: no such file or folder, and the model on the Hub is none of fcnseg's: "
        "expected config.json and model.safetensors in it",
    ]
    assert "not of an fcnseg model" in lines[3], "seen before anything else is downloaded"
    assert sorted(Hub.files) == ["README.md", "config.json", "model.safetensors"]
    assert front_matter(Hub.files["README.md"].decode())[0]["license"] == "mit"
    assert_equal(from_pretrained(tmp_path / "pulled"), model)
    # An address at which nothing listens is a Hub that cannot be reached.
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        printed = elsewhere(PULL, tmp_path, **environment).strip()
        assert printed == "user/none: no such file or folder, and the Hub could not be reached, nor is it in the cache"
        assert_equal(from_pretrained(tmp_path / "from_cache"), model)


def test_a_cache_in_the_hubs_own_layout_is_read(model: FCN, folder: Path, tmp_path: Path) -> None:
    commit, store = "0123456789abcdef" * 2 + "01234567", tmp_path / "models--user--name"
    snapshot = store / "snapshots" / commit
    for path in (store / "refs", store / "blobs", snapshot):
        path.mkdir(parents=True)
    (store / "refs" / "main").write_text(commit)
    for file in folder.iterdir():
        (store / "blobs" / f"{file.name}-etag").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}-etag")
    for options in ({}, {"revision": "main"}, {"revision": commit}):
        loaded = from_pretrained("user/name", cache_dir=tmp_path, local_files_only=True, **options)
        assert_equal(loaded, model)
    edit(snapshot / "config.json", library="other")
    with pytest.raises(InputError, match=r"models--user--name.*config\.json: not of an fcnseg model"):
        from_pretrained("user/name", cache_dir=tmp_path, local_files_only=True)


def test_a_path_that_exists_comes_before_the_hub(model: FCN, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("user/name")
    assert_equal(from_pretrained("user/name"), model)
