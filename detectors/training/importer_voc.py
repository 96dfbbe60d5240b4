"""Labels in Pascal VOC's XML, one file for each picture. Source: the VOC2012 development kit, sections 2.2 and 5.2."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from detectors.training.found import Defect, Found, FoundLabel, FoundPicture
from detectors.training.importer_layouts import find_picture, split_of
from detectors.training.xml_lines import LINE, parse_xml
from schemas.errors import ConfigurationError

_LISTS = Path("ImageSets") / "Main"
_PICTURE_FOLDERS = ("JPEGImages", "images")


def read_voc(source: Path, pictures: Path | None = None) -> Found:
    """Read a folder: VOC's own (`Annotations/`, `JPEGImages/`, splits by `ImageSets/Main/*.txt`), a plain one, or one of subfolders.

    Corners are VOC's: pixels counted from 1, the last one within the box. Its difficult objects, which VOC neither trains on nor
    counts, become crowds. Classes are named in the order of the alphabet. Raises ConfigurationError where there is no XML file.
    """
    files = sorted(source.rglob("*.xml"))
    if not files:
        raise ConfigurationError(f"there are no labels in Pascal VOC's format (*.xml) in {source}")
    reader = _Reader(source, pictures)
    found = tuple(picture for file in files for picture in reader.read(file))
    names = {label.name for picture in found for label in picture.labels}
    return Found(tuple(sorted(names)), found, tuple(reader.defects))


class _Reader:
    def __init__(self, source: Path, pictures: Path | None) -> None:
        self.defects: list[Defect] = []
        self._source, self._pictures = source, pictures
        self._listed = _read_lists(source / _LISTS)

    def read(self, file: Path) -> Iterator[FoundPicture]:
        """The picture of a file; none where it is no such file."""
        try:
            root = parse_xml(file.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
        except ValueError as error:
            self.defects.append(Defect(str(file), str(error)))
            return
        if root.tag != "annotation":
            self.defects.append(Defect(_place(file, root), f"<{root.tag}> is not <annotation>"))
            return
        picture = self._find_picture(file, (root.findtext("filename") or "").strip())
        labels = tuple(label for entry in root.iter("object") for label in self._labels(file, entry))
        name = Path(picture.name)
        if self._listed:
            split = self._listed.get(file.stem, "")
            if not split:
                return
        else:
            place = file.relative_to(self._source).parent
            split = split_of(place.parts[0]) if place.parts else ""
            # The subfolders stay, but for those that say what we say otherwise.
            kept = [part for part in place.parts if part != "Annotations" and not split_of(part)]
            name = Path(*kept, picture.name)
        yield FoundPicture(picture, name, _place(file, root), labels, self._size(file, root), split)

    def _labels(self, file: Path, entry: Element) -> Iterator[FoundLabel]:
        place = _place(file, entry)
        name = (entry.findtext("name") or "").strip()
        if not name:
            self.defects.append(Defect(place, "the object has no name"))
            return
        corners = [entry.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(corner or "") for corner in corners)
        except ValueError:
            self.defects.append(Defect(place, f"the object {name!r} has no bndbox of four numbers"))
            return
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        yield FoundLabel(name, (left - 1, top - 1, right, bottom), place, crowd=difficult)

    def _size(self, file: Path, root: Element) -> tuple[int, int] | None:
        """What the file claims; None where it claims nothing, or 0, which some tools write for it."""
        width, height = (root.findtext(f"size/{side}") for side in ("width", "height"))
        try:
            size = (int(float(width or 0)), int(float(height or 0)))
        except (ValueError, OverflowError):
            self.defects.append(Defect(_place(file, root), "its size is not two numbers"))
            return None
        return size if all(size) else None

    def _find_picture(self, file: Path, name: str) -> Path:
        # Some tools write a whole path, of a machine that is not this one.
        name = name.replace("\\", "/").rpartition("/")[2] or f"{file.stem}.jpg"
        roots = (
            [self._pictures]
            if self._pictures
            else [
                file.parent,
                *(above / folder for above in (file.parent, file.parent.parent) for folder in _PICTURE_FOLDERS),
            ]
        )
        for root in roots:
            if (root / name).is_file():
                return root / name
            if found := find_picture(root / file.stem):
                return found
        return roots[0] / name


def _read_lists(folder: Path) -> dict[str, str]:
    """The split of each picture that the lists name. VOC's lists of single classes (`cat_train.txt`) say nothing new."""
    listed: dict[str, str] = {}
    for name in ("train", "val", "test"):
        file = folder / f"{name}.txt"
        if not file.is_file():
            continue
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read {file}: {error}") from error
        for number, stem in enumerate((line.strip() for line in lines), 1):
            if stem and listed.setdefault(stem, name) != name:
                raise ConfigurationError(f"{file}, line {number}: {stem} is in {listed[stem]} already")
    return listed


def _place(file: Path, element: Element) -> str:
    return f"{file}, line {element.get(LINE)}"
