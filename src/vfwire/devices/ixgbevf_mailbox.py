"""The mailbox of an 82599 VF: how the buffer changes hands, and what the PF answers.

Hand-over: 82599 datasheet 4.6.10 and 8.3.5.1 (VFMAILBOX); Linux ixgbe_mbx.c on the PF's side. A message is
taken the moment that the VF rings, and its answer is there when the VF next looks. Answers: Linux
ixgbe_sriov.c. Whatever a guest writes is an answer with NACK at worst; nothing here raises on a guest's
account.
"""

import logging
from collections.abc import Callable

from vfwire.devices.function import MessageObserver
from vfwire.devices.pf_port import PfPort
from vfwire.devices.settings import NO_MAC, is_valid_mac
from vfwire.layouts import ixgbe_mailbox as msg
from vfwire.layouts.ixgbevf import (
    MAILBOX_ACK,
    MAILBOX_PFACK,
    MAILBOX_PFSTS,
    MAILBOX_R2C_BITS,
    MAILBOX_REQ,
    MAILBOX_RSTD,
    MAILBOX_VFU,
    MAILBOX_WORDS,
)

_log = logging.getLogger(__name__)

_WORD = 0xFFFFFFFF
_REFUSED_APIS = (msg.API_20, msg.API_15)


class Mailbox:
    """VFMBMEM and VFMAILBOX of one function, the PF behind them. `interrupt` raises the mailbox cause."""

    def __init__(self, port: PfPort, interrupt: Callable[[], None]) -> None:
        self.port = port
        self._interrupt = interrupt
        self.observer: MessageObserver | None = None
        self.buffer = [0] * MAILBOX_WORDS
        self._bits = 0  # PFSTS, PFACK, RSTD: until the VF reads them
        self._vf_holds = False
        self._unread = False  # a message of the PF that the VF has not acknowledged
        self._ping_waits = False
        self.messages = 0
        self._answers = _answers()

    def reset(self) -> None:
        """The function was reset: the buffer is empty, nobody holds it, and the PF tells that the reset is
        over.
        """
        self.buffer = [0] * MAILBOX_WORDS
        self._bits = MAILBOX_RSTD
        self._vf_holds = self._unread = self._ping_waits = False

    def read_control(self) -> int:
        """VFMAILBOX. The PF's bits are cleared by being read."""
        value = self._bits | (MAILBOX_VFU if self._vf_holds else 0)
        self._bits &= ~MAILBOX_R2C_BITS
        return value

    def write_control(self, value: int) -> None:
        self._vf_holds = bool(value & MAILBOX_VFU)
        if value & MAILBOX_ACK:
            self._unread = False
            if not self.port.clear_to_send:
                self._put([msg.MSGTYPE_NACK])  # who is not clear to send should not be reading either
        if value & MAILBOX_REQ:
            self.messages += 1
            self._unread = False
            self._take()
        if self._ping_waits and not self._vf_holds and not self._unread:
            self.ping()

    def ping(self) -> None:
        """Tell the VF to look again (a PF control message); with CTS unless it must reset first."""
        if self._vf_holds or self._unread:
            self._ping_waits = True
            return
        self._ping_waits = False
        self._put([msg.PF_CONTROL_MSG | (msg.MSGTYPE_CTS if self.port.clear_to_send else 0)])

    def _put(self, words: list[int]) -> None:
        self._show("PF to VF", words)
        self.buffer[: len(words)] = [word & _WORD for word in words]
        self._unread = True
        self._bits |= MAILBOX_PFSTS
        self._interrupt()

    def _take(self) -> None:
        words = list(self.buffer)
        self._show("VF to PF", words)
        self._bits |= MAILBOX_PFACK
        if words[0] & (msg.MSGTYPE_ACK | msg.MSGTYPE_NACK):
            self._interrupt()  # an answer of the PF's own that comes back: seen, and nothing more
            return
        if words[0] == msg.VF_RESET:
            self._put(self._reset_answer())
            return
        if not self.port.clear_to_send:
            self._put([words[0] | msg.MSGTYPE_NACK])
            return
        answer = self._answers.get(words[0] & msg.MSGTYPE_MASK)
        granted = answer is not None and answer(self.port, words)
        if not granted:
            _log.debug("%s pool %d: message %08x refused", self.port.facts.name, self.port.pool, words[0])
        words[0] |= (msg.MSGTYPE_ACK if granted else msg.MSGTYPE_NACK) | msg.MSGTYPE_CTS
        self._put(words)

    def _show(self, direction: str, words: list[int]) -> None:
        if self.observer is not None:
            used = max((place for place, word in enumerate(words, 1) if word), default=1)
            self.observer("mailbox", direction, msg.describe(words[0]), words[:used])

    def _reset_answer(self) -> list[int]:
        self.port.reset()
        self.port.clear_to_send = True
        self.buffer = [0] * MAILBOX_WORDS
        mac = self.port.mac
        kind = msg.MSGTYPE_NACK if mac == NO_MAC else msg.MSGTYPE_ACK
        return [msg.VF_RESET | kind, *_mac_words(mac), msg.MC_TYPE_47_36]


def _mac_words(mac: bytes) -> tuple[int, int]:
    return int.from_bytes(mac[:4], "little"), int.from_bytes(mac[4:], "little")


def _mac_of(words: list[int]) -> bytes:
    pair = words[msg.MAC_WORD].to_bytes(4, "little") + words[msg.MAC_WORD + 1].to_bytes(4, "little")
    return pair[: msg.MAC_BYTES]


def _information(words: list[int]) -> int:
    return (words[0] & msg.MSGINFO_MASK) >> msg.MSGINFO_SHIFT


# --- Answers: change `words` in place, return whether the request is granted --------------------------------


def _set_mac_addr(port: PfPort, words: list[int]) -> bool:
    mac, settings = _mac_of(words), port.settings
    if not is_valid_mac(mac):
        return False
    with port.engine.parked():  # so that no two functions are granted one address
        if not settings.trust and mac != port.mac and (settings.mac_is_set or port.owned_by_another(mac)):
            return False
        return port.use_mac(mac)


def _set_macvlan(port: PfPort, words: list[int]) -> bool:
    mac, index = _mac_of(words), _information(words)
    if index == 0:
        port.clear_macvlans()
        return True
    if not is_valid_mac(mac):
        return False
    with port.engine.parked():
        if not port.settings.trust and (port.settings.mac_is_set or port.owned_by_another(mac)):
            return False
        return port.add_macvlan(mac, first=index == 1)


def _set_multicast(port: PfPort, words: list[int]) -> bool:
    count = min(_information(words), msg.MULTICAST_HASHES_MAX)
    halves = [half for word in words[msg.MULTICAST_HASH_WORD :] for half in (word & 0xFFFF, word >> 16)]
    port.set_hashes(tuple(half & msg.MULTICAST_HASH_MASK for half in halves[:count]))
    return True


def _set_vlan(port: PfPort, words: list[int]) -> bool:
    vlan, add = words[msg.VLAN_WORD] & msg.VLAN_ID_MASK, bool(_information(words))
    if port.settings.vlan:
        return False
    if vlan == 0:
        return True  # untagged frames are always taken; there is nothing to add, and it cannot be removed
    return port.set_vlan(vlan, add=add)


def _set_lpe(port: PfPort, words: list[int]) -> bool:
    return port.set_longest_frame(words[msg.LPE_WORD])


def _negotiate_api(port: PfPort, words: list[int]) -> bool:
    version = words[1]
    if version in _REFUSED_APIS or version > min(port.facts.api_ceiling, msg.API_17):
        return False
    port.api = version
    return True


def _get_queues(port: PfPort, words: list[int]) -> bool:
    if port.api < msg.API_11:
        return False
    words[msg.TX_QUEUES_WORD] = words[msg.RX_QUEUES_WORD] = port.facts.queues
    words[msg.TRANS_VLAN_WORD] = int(bool(port.settings.vlan or port.settings.qos))
    words[msg.DEF_QUEUE_WORD] = 0
    return True


def _get_reta(port: PfPort, words: list[int]) -> bool:
    if not port.settings.query_rss or port.api < msg.API_12:
        return False
    per_word = msg.RETA_ENTRIES // msg.RETA_WORDS
    for number in range(msg.RETA_WORDS):
        entries = port.facts.reta[number * per_word : (number + 1) * per_word]
        packed = sum((entry & 3) << (msg.RETA_ENTRY_BITS * place) for place, entry in enumerate(entries))
        words[msg.RETA_WORD + number] = packed
    return True


def _get_rss_key(port: PfPort, words: list[int]) -> bool:
    if not port.settings.query_rss or port.api < msg.API_12:
        return False
    for number in range(msg.RSS_KEY_WORDS):
        piece = port.facts.rss_key[4 * number : 4 * number + 4]
        words[msg.RSS_KEY_WORD + number] = int.from_bytes(piece, "little")
    return True


def _update_xcast(port: PfPort, words: list[int]) -> bool:
    mode = words[msg.XCAST_WORD]
    if port.api < msg.API_12 or mode > msg.XCAST_MODE_PROMISC:
        return False
    if port.api == msg.API_12 and mode == msg.XCAST_MODE_PROMISC:
        return False
    if mode > msg.XCAST_MODE_MULTI and not port.settings.trust:
        mode = msg.XCAST_MODE_MULTI
    if mode == msg.XCAST_MODE_PROMISC and not port.host:
        return False  # an 82599 has no promiscuous VFs
    if mode != port.xcast:
        port.set_xcast(mode)
    words[msg.XCAST_WORD] = mode
    return True


def _get_link_state(port: PfPort, words: list[int]) -> bool:
    if port.api < msg.API_12:
        return False
    words[msg.LINK_STATE_WORD] = int(port.settings.state != "disable")
    return True


def _negotiate_features(port: PfPort, words: list[int]) -> bool:
    if port.api < msg.API_17:
        return False
    words[msg.FEATURES_WORD] = 0
    return True


def _answers() -> dict[int, Callable[[PfPort, list[int]], bool]]:
    """By message type. What is not here is refused: IPsec, the link state of a later chip's PF."""
    return {
        msg.VF_SET_MAC_ADDR: _set_mac_addr,
        msg.VF_SET_MULTICAST: _set_multicast,
        msg.VF_SET_VLAN: _set_vlan,
        msg.VF_SET_LPE: _set_lpe,
        msg.VF_SET_MACVLAN: _set_macvlan,
        msg.VF_API_NEGOTIATE: _negotiate_api,
        msg.VF_GET_QUEUES: _get_queues,
        msg.VF_GET_RETA: _get_reta,
        msg.VF_GET_RSS_KEY: _get_rss_key,
        msg.VF_UPDATE_XCAST_MODE: _update_xcast,
        msg.VF_GET_LINK_STATE: _get_link_state,
        msg.VF_FEATURES_NEGOTIATE: _negotiate_features,
    }
