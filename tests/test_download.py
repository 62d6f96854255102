"""Getting official files, against servers on this machine that behave and that misbehave."""

import functools
import http.server
import socket
import threading
import time

import pytest
from conftest import assert_user_error, run_script

from pathlab.data import download as download_module
from pathlab.data import sets as data_module
from pathlab.data.download import OfficialSet, download, is_reachable
from pathlab.data.sets import load
from pathlab.errors import UserError
from pathlab.files import md5


@pytest.fixture(autouse=True)
def no_proxy_and_no_home(monkeypatch, tmp_path_factory):
    """No proxy between this test and its own servers; no real data set within reach."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp("home")))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tissue_npz):
    """A file server on the folder of tissue.npz; its address."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tissue_npz.parent)
    )
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture
def silent_server():
    """Accepts connections and never answers; its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_download_arrives_whole_and_is_used(server, tissue_npz, tmp_path, monkeypatch):
    names = tuple("abcdefghi")
    official = OfficialSet("bloodmnist", f"{server}/tissue.npz", md5(tissue_npz), names)
    monkeypatch.setattr(data_module, "official_sets", lambda: {"bloodmnist": official})
    root = tmp_path / "data"
    data = load("bloodmnist", root)
    assert (data.name, data.source, data.class_names) == ("bloodmnist", "download", names)
    assert (root / "bloodmnist.npz").read_bytes() == tissue_npz.read_bytes()
    names = {"bloodmnist.cache", "bloodmnist.npz", ".bloodmnist.cache.lock"}
    assert {p.name for p in root.iterdir()} == names


def test_a_download_with_the_wrong_md5_leaves_nothing(server, tmp_path):
    official = OfficialSet("bloodmnist", f"{server}/tissue.npz", "0" * 32, ())
    with pytest.raises(UserError, match=r"failed.*MD5 00000"):
        download(official, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_stalls_is_given_up(silent_server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "is_reachable", lambda url: True)
    monkeypatch.setattr(download_module, "STALL_SECONDS", 0.5)
    official = OfficialSet("bloodmnist", f"http://127.0.0.1:{silent_server}/x.npz", "0" * 32, ())
    with pytest.raises(UserError, match="save it as"):
        download(official, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reachable_and_not(server, silent_server):
    assert is_reachable(f"{server}/tissue.npz")
    assert not is_reachable(f"{server}/nothing-here.npz")
    began = time.monotonic()
    assert not is_reachable(f"http://127.0.0.1:{silent_server}/tissue.npz")
    assert time.monotonic() - began < 5, "promised to users, and most of it is one time-out"


def test_a_server_that_speaks_something_else(tmp_path):
    """Its first answer is no HTTP: neither the probe nor the program may break."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer():
            for _ in range(2):
                connection, _ = listener.accept()
                connection.sendall(b"SSH-2.0-nonsense\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        arguments = ("--dataset", "bloodmnist")
        done = run_script("segmentation_main.py", *arguments, cwd=tmp_path, https_proxy=proxy)
    assert_user_error(done, "bloodmnist.npz")


def test_auto_downloads_where_it_can(server, tissue_npz, tmp_path, monkeypatch, capsys):
    official = OfficialSet("pathmnist", f"{server}/tissue.npz", md5(tissue_npz), tuple("abcdefghi"))
    monkeypatch.setattr(data_module, "official_sets", lambda: {"pathmnist": official})
    assert load("auto", tmp_path).source == "download"
    assert "STAND-IN" not in capsys.readouterr().out


def test_auto_falls_back_if_the_download_fails(server, tmp_path, monkeypatch, capsys):
    official = OfficialSet("pathmnist", f"{server}/tissue.npz", "0" * 32, ())
    monkeypatch.setattr(data_module, "official_sets", lambda: {"pathmnist": official})
    monkeypatch.setattr(data_module, "STAND_IN_SIZES", {"train": 40, "val": 10, "test": 10})
    assert load("auto", tmp_path).source == "synthetic"
    out = capsys.readouterr().out
    assert "STAND-IN DATA" in out and "its MD5 is" in out


def test_a_silent_network_is_noticed(silent_server, tmp_path):
    """The whole program, behind a proxy that takes the connection and says nothing."""
    proxy = f"http://127.0.0.1:{silent_server}"
    arguments = ("--dataset", "pathmnist")
    done = run_script("segmentation_main.py", *arguments, cwd=tmp_path, https_proxy=proxy)
    assert_user_error(done, "cannot be reached", "pathmnist.npz")
