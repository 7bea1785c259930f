"""Ed25519 signatures of output filters.

Who publishes makes a key pair once, keeps the private key, and publishes the public one where users trust it:

    openssl genpkey -algorithm ed25519 -out filter_key.pem
    openssl pkey -in filter_key.pem -pubout -out filter_key.pub.pem

or, without openssl, `new_signing_key("filter_key.pem", "filter_key.pub.pem")`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.listing import regular_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32
_HEXADECIMAL_KEY = re.compile(r"[0-9a-fA-F]{64}")


def new_signing_key(private: str | os.PathLike[str], public: str | os.PathLike[str]) -> str:
    """Writes a new key pair as PEM files, the private one readable by its owner only; returns the public key.

    Raises:
      UserError: one of the files exists; a key that signed something is never overwritten.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path in (private, public):
        if os.path.exists(path):
            raise UserError(f"{path} exists already; choose another name for the new key")
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    epath.Path(public).write_bytes(public_key_file(raw_public_key(key)))
    return raw_public_key(key).hex()


def load_signing_key(path: epath.PathLike) -> Ed25519PrivateKey:
    """Reads a private key from a PEM file.

    Raises:
      UserError: there is none, or it is not an Ed25519 key without password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    advice = "make one with: openssl genpkey -algorithm ed25519 -out filter_key.pem"
    file = epath.Path(path)
    if not file.exists() or file.is_dir():
        raise UserError(f"signing key {file} does not exist; {advice}")
    try:
        key = serialization.load_pem_private_key(regular_file(file, "signing key").read_bytes(), password=None)
    except TypeError as error:
        raise UserError(f"signing key {file} has a password; give a copy without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"signing key {file} is not a private key in a PEM file; {advice}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"signing key {file} is not an Ed25519 key; {advice}")
    return key


def raw_public_key(key: Ed25519PrivateKey) -> bytes:
    """Returns the 32 bytes of the public key that belongs to a private one."""
    return key.public_key().public_bytes_raw()


def public_key_file(raw: bytes) -> bytes:
    """Returns a public key as the content of a PEM file."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(raw).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def load_public_key(key: str) -> bytes:
    """Returns the 32 bytes of a public key: 64 hexadecimal digits, or the path of a PEM file.

    Raises:
      UserError: it is neither.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if _HEXADECIMAL_KEY.fullmatch(key):
        return bytes.fromhex(key)
    file = epath.Path(key)
    if not key or not file.exists() or file.is_dir():
        raise UserError(f"public key {key!r} is neither 64 hexadecimal digits nor a file; give the publisher's key")
    try:
        found = serialization.load_pem_public_key(regular_file(file, "public key").read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"public key {file} is not a public key in a PEM file; give the publisher's key") from error
    if not isinstance(found, Ed25519PublicKey):
        raise UserError(f"public key {file} is not an Ed25519 key; give the publisher's key")
    return found.public_bytes_raw()


def is_signed_by(public_key: bytes, signature: bytes, content: bytes) -> bool:
    """Returns whether `signature` is that of `content` under a public key of 32 bytes."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
    except InvalidSignature:
        return False
    return True
