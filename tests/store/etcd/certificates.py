"""A certificate authority and certificates signed by it, made by openssl for one test."""

import subprocess
from pathlib import Path


def openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def authority(directory: Path) -> Path:
    """Its certificate; the key is beside it."""
    certificate, key = directory / "ca.pem", directory / "ca.key"
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    # What RFC 5280 wants of an authority: Python 3.13 and newer verify strictly.
    extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    openssl(*new, "-subj", "/CN=test authority", *extensions, "-keyout", str(key), "-out", str(certificate))
    return certificate


def signed(ca: Path, name: str, subject: str, san: str, usage: str) -> tuple[Path, Path]:
    """Certificate and key; `usage` is `serverAuth` or `clientAuth`."""
    certificate, key, request = (ca.parent / f"{name}.{end}" for end in ("pem", "key", "csr"))
    extensions = ca.parent / f"{name}.ext"
    extensions.write_text(
        f"subjectAltName={san}\nextendedKeyUsage={usage}\nkeyUsage=critical,digitalSignature\n"
        "basicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject]
    openssl(*new, "-keyout", str(key), "-out", str(request))
    sign = ["x509", "-req", "-days", "2", "-in", str(request), "-CA", str(ca), "-CAkey", str(ca.with_suffix(".key"))]
    openssl(*sign, "-CAcreateserial", "-extfile", str(extensions), "-out", str(certificate))
    return certificate, key
