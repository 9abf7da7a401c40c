"""XDP programs of a few instructions as object files that libbpf loads, without a compiler (elf.h; RFC 9669)."""

import struct

DROP, PASS = 1, 2
_EM_BPF, _ET_REL = 247, 1
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3
_ALLOC_EXECUTE = 6
_GLOBAL_FUNCTION = 1 << 4 | 2
_MOV, _CALL, _EXIT = 0xB7, 0x85, 0x95
_COPY, _ADD, _IF_ABOVE = 0xBF, 0x07, 0x2D
_LOAD32, _LOAD16, _STORE32, _STORE16 = 0x61, 0x69, 0x63, 0x6B
_REDIRECT = 23  # bpf_redirect(interface, flags)


def _instruction(code: int, register: int = 0, value: int = 0, *, source: int = 0, offset: int = 0) -> bytes:
    return struct.pack("<BBhi", code, register | source << 4, offset, value)


def verdict(number: int) -> bytes:
    """A program that has one answer for every packet."""
    return _instruction(_MOV, 0, number) + _instruction(_EXIT)


def _swap_addresses() -> bytes:
    """The frame at register 6 gets its sender's address as its receiver's, and the other way round."""
    places = ((2, 0, _LOAD32, _STORE32), (3, 4, _LOAD16, _STORE16))  # register, offset, four bytes and two
    loads, stores = b"", b""
    for register, offset, load, store in places:
        loads += _instruction(load, register, source=6, offset=offset)
        loads += _instruction(load, register + 2, source=6, offset=6 + offset)
        stores += _instruction(store, 6, source=register + 2, offset=offset)
        stores += _instruction(store, 6, source=register, offset=6 + offset)
    return loads + stores


def send_back(interface: int) -> bytes:
    """A program that redirects every packet to an interface, addressed to who sent it."""
    body = _swap_addresses()
    body += _instruction(_MOV, 1, interface) + _instruction(_MOV, 2, 0) + _instruction(_CALL, 0, _REDIRECT)
    body += _instruction(_EXIT)
    begin = _instruction(_LOAD32, 6, source=1) + _instruction(
        _LOAD32, 7, source=1, offset=4
    )  # data, data_end
    begin += _instruction(_COPY, 2, source=6) + _instruction(_ADD, 2, 14)
    begin += _instruction(_IF_ABOVE, 2, source=7, offset=len(body) // 8)  # shorter than its header: as below
    return begin + body + verdict(DROP)


def bpf_object(code: bytes) -> bytes:
    """An ELF object with the program in its section `xdp`."""
    names = b"\0xdp\0.symtab\0.strtab\0license\0program\0"
    where = {name: names.index(b"\0" + name.encode() + b"\0") + 1 for name in ("xdp", ".symtab", ".strtab")}
    license_name, program = names.index(b"license"), names.index(b"program")
    symbols = bytes(24) + struct.pack("<IBBHQQ", program, _GLOBAL_FUNCTION, 0, 1, 0, len(code))
    parts = [code, symbols, names, b"GPL\0"]
    offsets, at = [], 64
    for part in parts:
        offsets.append(at)
        at += -(-len(part) // 8) * 8
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (where["xdp"], _PROGBITS, _ALLOC_EXECUTE, 0, offsets[0], len(code), 0, 0, 8, 0),
        (where[".symtab"], _SYMTAB, 0, 0, offsets[1], len(symbols), 3, 1, 8, 24),
        (where[".strtab"], _STRTAB, 0, 0, offsets[2], len(names), 0, 0, 1, 0),
        (license_name, _PROGBITS, 2, 0, offsets[3], 4, 0, 0, 1, 0),
    ]
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", _ET_REL, _EM_BPF, 1, 0, 0, at, 0, 64, 0, 0, 64, len(sections), 3)
    body = b"".join(part.ljust(-(-len(part) // 8) * 8, b"\0") for part in parts)
    return head + body + b"".join(struct.pack("<IIQQQQIIQQ", *section) for section in sections)
