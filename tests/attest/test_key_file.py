import base64
import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from attest.errors import FormatError, InputError
from attest.keys import PrivateKey

SSH_KEYGEN = shutil.which("ssh-keygen")
needs_ssh_keygen = pytest.mark.skipif(not SSH_KEYGEN, reason="no ssh-keygen command here")
# RFC 8032 section 7.1, test 1.
KEY = PrivateKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))


def test_a_saved_key_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "run"
    umask = os.umask(0)
    try:
        KEY.save(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PrivateKey.load(path).keyid == KEY.keyid


def test_saving_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run"
    KEY.save(path)
    before = path.read_bytes()
    with pytest.raises(InputError):
        PrivateKey.generate().save(path)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError):
        KEY.save(tmp_path / "link")
    assert path.read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()


def test_saving_into_a_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        KEY.save(tmp_path / "missing" / "run")
    with pytest.raises(InputError):
        PrivateKey.load(tmp_path / "run")


def test_a_full_disk_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError) as failure:
        KEY.save(tmp_path / "run")
    assert "No space left" in str(failure.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_open_to_others_is_not_loaded(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "run"
    KEY.save(path)
    path.chmod(mode)
    with pytest.raises(InputError) as refusal:
        PrivateKey.load(path)
    assert f"chmod 600 {path}" in str(refusal.value)


def test_a_mounted_key_of_another_owner_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rule of ssh: secrets mounted into a container belong to another user.
    path = tmp_path / "run"
    KEY.save(path)
    path.chmod(0o640)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert PrivateKey.load(path).keyid == KEY.keyid


def test_a_saved_key_is_durable_on_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, synced = os.fsync, []

    def watch(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((stat.S_ISDIR(status.st_mode), status.st_size))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    KEY.save(tmp_path / "run")
    after = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    assert synced[0] == (False, len(KEY.to_openssh()))
    assert [is_directory for is_directory, _ in synced] == [False, True]
    assert len(after) == len(before)


def test_a_damaged_key_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.touch(0o600)
    with pytest.raises(FormatError) as refusal:
        PrivateKey.load(path)
    assert str(path) in str(refusal.value)


def test_cryptography_reads_our_key_file() -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    theirs = serialization.load_ssh_private_key(KEY.to_openssh("run"), password=None)
    assert theirs.sign(b"m") == KEY.sign(b"m")


def test_we_read_the_key_file_of_cryptography() -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    pem = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    assert PrivateKey.from_openssh(pem).keyid == PrivateKey(bytes(32)).keyid


def ssh_keygen(*arguments: str) -> bytes:
    command = [str(SSH_KEYGEN), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


@needs_ssh_keygen
def test_ssh_keygen_reads_our_key_file(tmp_path: Path) -> None:
    KEY.save(tmp_path / "run", "a comment")
    line = ssh_keygen("-y", "-f", str(tmp_path / "run")).split()
    blob = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + KEY.public
    assert line[:2] == [b"ssh-ed25519", base64.b64encode(blob)]


@needs_ssh_keygen
def test_we_read_the_key_file_of_ssh_keygen(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", "x@y", "-f", str(path))
    public = (tmp_path / "theirs.pub").read_bytes().split()[1]
    assert base64.b64decode(public)[-32:] == PrivateKey.load(path).public


@needs_ssh_keygen
def test_an_encrypted_key_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    ssh_keygen("-q", "-t", "ed25519", "-N", "a passphrase", "-f", str(path))
    with pytest.raises(FormatError) as refusal:
        PrivateKey.load(path)
    assert refusal.value.code == "encrypted key"
    assert "ssh-keygen -p" in str(refusal.value)


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_another_kind_of_key_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "theirs"
    ssh_keygen("-q", "-t", kind, "-N", "", "-f", str(path))
    with pytest.raises(FormatError):
        PrivateKey.load(path)
