"""The AIGC property in an XMP packet: reading it, and putting it into a packet that may hold other things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from safegen.errors import InputError, UnreadableMediaError

MAX_PACKET: Final = 16 << 20
PROPERTY: Final = "TC260:AIGC"

_NAMESPACE: Final = "http://www.tc260.org.cn/ns/AIGC/1.0/"
_NAME: Final = f"{{{_NAMESPACE}}}AIGC"
_IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_OF_RDF: Final = f"{{{_RDF}}}"
_EMPTY: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{_RDF}"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
_ELEMENT: Final = re.compile(r"(<TC260:AIGC>)[^<]*(</TC260:AIGC>)")
_END: Final = re.compile(r"</(\w+:)?RDF\s*>")


def find(packet: bytes) -> list[str]:
    """Return the values of the property; UnreadableMediaError where the packet is no XMP in UTF-8."""
    root = _parse(_decode(packet))
    elements = ["".join(element.itertext()).strip() for element in root.iter(_NAME)]
    return elements + [value for element in root.iter() if (value := element.get(_NAME)) is not None]


def properties(packet: bytes) -> Iterator[tuple[str, str]]:
    """Yield each property as ``{namespace}name`` and its text, attribute or resource.

    A member of a list has the name of the property that holds the list. UnreadableMediaError as for ``find``.
    """
    waiting = [(_parse(_decode(packet)), "")]
    while waiting:
        element, name = waiting.pop()
        if not element.tag.startswith(_OF_RDF):
            name = element.tag
        if text := (element.text or "").strip() or element.get(f"{_OF_RDF}resource", ""):
            yield name, text
        yield from ((key, value) for key, value in element.items() if not key.startswith(_OF_RDF))
        waiting += ((child, name) for child in reversed(element))


def merge(packet: bytes | None, text: str, source_type: str) -> bytes:
    """Return the packet with the property set to ``text``, and the rest as it was; None for the packet makes one.

    A new property comes with ``source_type`` (an IPTC digital source type), if given, unless the packet names one.
    InputError where the packet is written in a form that cannot be added to.
    """
    old = _EMPTY if packet is None else _decode(packet)
    _parse(old)
    value = escape(text)
    if len(_ELEMENT.findall(old)) == 1:
        return _ELEMENT.sub(lambda found: found[1] + value + found[2], old).encode()
    end = next(reversed(list(_END.finditer(old))), None)
    if end is None or PROPERTY in old:
        raise InputError("has XMP metadata in a form that cannot be added to", remedy="Write a copy without it first.")
    rdf = end[1] or ""
    names = f'xmlns:TC260="{_NAMESPACE}"'
    inner = f"<TC260:AIGC>{value}</TC260:AIGC>"
    if source_type and _IPTC not in old:
        names += f' xmlns:Iptc4xmpExt="{_IPTC}"'
        inner += f"<Iptc4xmpExt:DigitalSourceType>{escape(source_type)}</Iptc4xmpExt:DigitalSourceType>"
    added = f'<{rdf}Description {rdf}about="" {names}>{inner}</{rdf}Description>'
    return (old[: end.start()] + added + old[end.start() :]).encode()


def _decode(packet: bytes) -> str:
    try:
        text = packet.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableMediaError("the file's XMP metadata is no UTF-8 text") from error
    if len(packet) > MAX_PACKET or "<!DOCTYPE" in text or "<!ENTITY" in text:
        # Entities can make a small packet expand without bound; XMP has no use for them.
        raise UnreadableMediaError("the file's XMP metadata is too large or declares entities")
    return text.removeprefix("\ufeff")


def _parse(text: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text.strip())  # noqa: S314 - entities are refused above
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise UnreadableMediaError(f"the file's XMP metadata is damaged ({error})") from error
