"""Where a server listens, with which keys, and what it refuses."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from edgert_models.errors import BackendError, RequestError

from edgert.server.address import Address, keys_of

TLS = Path(__file__).with_name("tls")
"""A certificate for localhost that signs itself, its key, and that key with a passphrase (openssl req -x509)."""


def test_addresses() -> None:
    Address().check([])
    Address(host="::1").check([])
    Address(host="0.0.0.0").check(["key"])
    Address(host="0.0.0.0", path=Path("socket")).check([])
    with pytest.raises(RequestError, match=r"--host 0\.0\.0\.0 can be reached from other machines: give --api-key"):
        Address(host="0.0.0.0").check([])
    with Address(port=0).listen() as taken, pytest.raises(BackendError, match=r"cannot listen on 127\.0\.0\.1 port"):
        Address(port=taken.getsockname()[1]).listen()


def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "edgert.sock"
    address = Address(path=path)
    with address.listen() as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert address.url(listener) == f"unix:{path}"
        with pytest.raises(BackendError, match=r"cannot listen on .*edgert\.sock: another server listens there"):
            address.listen()
    assert path.exists()  # the server was killed
    address.listen().close()
    address.leave()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(BackendError, match="there is a file of that name"):
        address.listen()
    assert path.read_text() == "precious"
    with pytest.raises(BackendError, match=r"cannot listen on .*: .*(too long|No such file)"):
        Address(path=tmp_path / ("x" * 200)).listen()


def test_certificates(tmp_path: Path) -> None:
    Address(certificate=TLS / "cert.pem", key=TLS / "key.pem").check([])
    with pytest.raises(RequestError, match="--tls-cert and --tls-key belong together"):
        Address(certificate=TLS / "cert.pem").check([])
    for key in (tmp_path / "missing.pem", TLS / "cert.pem", TLS / "locked.pem"):
        with pytest.raises(RequestError, match=r"--tls-cert .*cert\.pem, --tls-key .*pem: "):
            Address(certificate=TLS / "cert.pem", key=key).check([])
    ssl.create_default_context(cafile=str(TLS / "cert.pem"))


def test_keys(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("# of the editors\nsecret\n\n other \n")
    assert keys_of([], None) == []
    assert keys_of(["given", "two"], None) == ["given", "two"]
    assert keys_of([], file) == ["secret", "other"]
    with pytest.raises(RequestError, match="--api-key is empty"):
        keys_of(["one", " "], None)
    with pytest.raises(RequestError, match="are both given"):
        keys_of(["given"], file)
    with pytest.raises(RequestError, match=r"--api-key-file .*nowhere: .*No such file"):
        keys_of([], tmp_path / "nowhere")
    file.write_text("\n# none\n")
    with pytest.raises(RequestError, match=r"--api-key-file .*key has no key"):
        keys_of([], file)
