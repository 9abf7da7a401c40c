"""XDP programs of a few instructions as object files that libbpf loads, without a compiler (elf.h; RFC 9669)."""

import struct

DROP, PASS = 1, 2
_EM_BPF, _ET_REL = 247, 1
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3
_ALLOC_EXECUTE = 6
_GLOBAL_FUNCTION = 1 << 4 | 2
_MOV, _CALL, _EXIT = 0xB7, 0x85, 0x95
_REDIRECT = 23  # bpf_redirect(interface, flags)


def _instruction(code: int, register: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, register, 0, value)


def verdict(number: int) -> bytes:
    """A program that has one answer for every packet."""
    return _instruction(_MOV, 0, number) + _instruction(_EXIT)


def redirect(interface: int) -> bytes:
    """A program that sends every packet out of another interface."""
    call = _instruction(_MOV, 1, interface) + _instruction(_MOV, 2, 0) + _instruction(_CALL, 0, _REDIRECT)
    return call + _instruction(_EXIT)


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
