"""What MLFLOW_TRACKING_* variables hold is in nothing that a command prints or leaves behind."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

SECRETS = ("alice-the-user", "pa55word!", "t0ken-of-alice")


class Talkative(BaseHTTPRequestHandler):
    """Refuses everything, and repeats what it was sent."""

    asked: list[str] = []

    def do_GET(self):
        type(self).asked.append(str(self.headers["Authorization"]))
        body = f"not you: {self.headers['Authorization']}".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Talkative) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def secrets(monkeypatch):
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    for name, value in zip(names, SECRETS, strict=True):
        monkeypatch.setenv(name, value)
    user, password, _ = SECRETS
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return [value.encode() for value in (*SECRETS, pair)]


def _left(folder, secrets):
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 5
    return [(file, secret) for file in files for secret in secrets if secret in file.read_bytes()]


@pytest.mark.parametrize("in_address", [False, True], ids=["variables", "address"])
def test_a_training_on_a_server_that_repeats_them(recu, server, secrets, monkeypatch, in_address):
    user, password, _ = SECRETS
    login = f"{user}:{password}@" if in_address else ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{login}127.0.0.1:{server}")
    Talkative.asked.clear()
    assert recu("train", "--epochs", 1, "-b", 16, *recu.tiny, "--save", "x") == 0
    shown = recu.out + recu.err
    assert Talkative.asked, "the store was never asked, so nothing could leak"
    assert "tracking: " in shown and "recu sync" in shown
    assert recu("sync", "--runs_dir", "results", *recu.places[:2]) == 2
    shown += recu.out + recu.err
    assert recu("ui", *recu.places[:2]) == 2
    shown += recu.out + recu.err
    assert [secret for secret in secrets if secret in shown.encode()] == []
    assert _left(recu.folder, secrets) == []


def test_a_training_on_a_store_that_works(recu, secrets, monkeypatch):
    uri = f"sqlite:///{recu.folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # A training on a busy machine may be over before a store that has to be made answers.
    assert recu("store", "--tracking_uri", uri, "--suites", "command-line") == 0
    assert recu("train", "--epochs", 1, "-b", 16, *recu.tiny, "--save", "x") == 0
    assert (recu.folder / "mlflow.db").stat().st_size and (recu.folder / "mlartifacts").is_dir()
    assert [secret for secret in secrets if secret in (recu.out + recu.err).encode()] == []
    assert _left(recu.folder, secrets) == []
