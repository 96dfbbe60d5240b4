"""XML that strangers wrote: elements with the lines on which they begin, and no entity ever expanded."""

from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

LINE = "line"
"""The attribute that holds an element's line."""


def parse_xml(content: bytes) -> Element:
    """The root element. Raises ValueError, with the line, for what is not XML and for a document type declaration.

    Such a declaration is the only place where entities can be declared: without it, a small file cannot expand into a large one
    ("billion laughs") nor name another. Deep nesting is refused by the bound below.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"line {parser.CurrentLineNumber}: elements are nested too deep")
        builder.start(tag, {**attributes, LINE: str(parser.CurrentLineNumber)})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> None:
        raise ValueError(f"line {parser.CurrentLineNumber}: document type declarations are refused")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"line {error.lineno}: not XML: {expat.ErrorString(error.code)}") from error
    except LookupError as error:
        raise ValueError(f"line 1: not XML: {error}") from error
    return builder.close()


_DEEPEST = 100
