"""The PF's side of the mailbox, as Linux ixgbe_sriov.c answers: every request, and whatever a hostile guest sends."""

import pytest
from device_kit import KEY, Guest, card_of, mac_words, pools_of
from hypothesis import given
from hypothesis import strategies as st

from vfwire.devices.settings import mac_to_int
from vfwire.layouts import ixgbe_mailbox as msg
from vfwire.layouts import ixgbevf as regs

OTHER_MAC = bytes.fromhex("0200c0ffee01")


def test_reset_answers_with_the_mac() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[1])
        answer = guest.ask([msg.VF_RESET])
        mac = card.settings(1).mac
        assert answer[0] == msg.VF_RESET | msg.MSGTYPE_ACK
        assert answer[1:3] == mac_words(mac)
        assert answer[3] == msg.MC_TYPE_47_36
        assert pools_of(card, mac) == 0b10


def test_reset_is_refused_where_no_mac_is_set() -> None:
    with card_of() as card:
        card.change(0, {"mac": "00:00:00:00:00:00"})
        guest = Guest(card.vfs[0])
        answer = guest.ask([msg.VF_RESET])
        assert answer[0] == msg.VF_RESET | msg.MSGTYPE_NACK
        assert answer[1:3] == [0, 0]
        assert guest.granted([msg.VF_SET_MAC_ADDR, *mac_words(OTHER_MAC)]) is not None
        assert pools_of(card, OTHER_MAC) == 1


def test_nothing_is_granted_before_a_reset() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        answer = guest.ask([msg.VF_API_NEGOTIATE, msg.API_11])
        assert answer[0] == msg.VF_API_NEGOTIATE | msg.MSGTYPE_NACK
        # Who acknowledges without being clear to send is told again.
        assert guest.read(regs.VFMAILBOX) & regs.MAILBOX_PFSTS
        assert guest.read(regs.VFMBMEM) == msg.MSGTYPE_NACK


@pytest.mark.parametrize("number", range(10))
def test_api_versions_as_linux_accepts_them(number: int) -> None:
    accepted = {msg.API_10, msg.API_11, msg.API_12, msg.API_13, msg.API_14, msg.API_16, msg.API_17}
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset(msg.API_10)
        granted = guest.granted([msg.VF_API_NEGOTIATE, number]) is not None
        assert granted == (number in accepted)
        assert card.vfs[0].port.api == (number if granted else msg.API_10)


@pytest.mark.parametrize("ceiling", ["1.0", "1.1", "1.3", "1.6"])
def test_the_api_ceiling_holds(ceiling: str) -> None:
    top = msg.API_NAMES.index(ceiling)
    with card_of(api_ceiling=ceiling) as card:
        guest = Guest(card.vfs[0])
        guest.reset(msg.API_10)
        assert guest.granted([msg.VF_API_NEGOTIATE, top]) is not None
        assert guest.granted([msg.VF_API_NEGOTIATE, top + 1]) is None


@pytest.mark.parametrize(("vfs", "queues"), [(1, 4), (31, 4), (32, 2), (63, 2)])
def test_queues_by_the_number_of_vfs(vfs: int, queues: int) -> None:
    with card_of(vfs) as card:
        guest = Guest(card.vfs[-1])
        guest.reset(msg.API_11)
        answer = guest.granted([msg.VF_GET_QUEUES])
        assert answer is not None and answer[1:5] == [queues, queues, 0, 0]


def test_queues_need_api_11_and_tell_of_a_port_vlan() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset(msg.API_10)
        assert guest.granted([msg.VF_GET_QUEUES]) is None
        card.change(0, {"vlan": 9})
        guest.granted([msg.VF_API_NEGOTIATE, msg.API_11])
        answer = guest.granted([msg.VF_GET_QUEUES])
        assert answer is not None and answer[msg.TRANS_VLAN_WORD] == 1


def test_a_guest_may_change_a_mac_that_the_operator_did_not_set() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        default = card.settings(0).mac
        assert guest.granted([msg.VF_SET_MAC_ADDR, *mac_words(OTHER_MAC)]) is not None
        assert (pools_of(card, OTHER_MAC), pools_of(card, default)) == (1, 0)
        assert guest.record.mac == mac_to_int(OTHER_MAC)
        guest.reset()
        assert (pools_of(card, OTHER_MAC), pools_of(card, default)) == (0, 1)


def test_a_mac_that_the_operator_set_is_his_unless_he_trusts() -> None:
    with card_of() as card:
        card.change(0, {"mac": "02:00:00:00:00:aa"})
        guest = Guest(card.vfs[0])
        guest.reset()
        assert guest.granted([msg.VF_SET_MAC_ADDR, *mac_words(OTHER_MAC)]) is None
        own = bytes.fromhex("0200000000aa")
        assert guest.granted([msg.VF_SET_MAC_ADDR, *mac_words(own)]) is not None
        assert guest.granted([msg.VF_SET_MACVLAN | 1 << 16, *mac_words(OTHER_MAC)]) is None
        card.change(0, {"trust": True})
        guest.reset()
        assert guest.granted([msg.VF_SET_MAC_ADDR, *mac_words(OTHER_MAC)]) is not None


@pytest.mark.parametrize("mac", ["000000000000", "ffffffffffff", "010000000001"])
def test_macs_that_are_none_are_refused(mac: str) -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        assert guest.granted([msg.VF_SET_MAC_ADDR, *mac_words(bytes.fromhex(mac))]) is None
        assert guest.granted([msg.VF_SET_MACVLAN | 1 << 16, *mac_words(bytes.fromhex(mac))]) is None


def test_a_neighbours_mac_cannot_be_taken() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        neighbour = card.settings(1).mac
        assert guest.granted([msg.VF_SET_MAC_ADDR, *mac_words(neighbour)]) is None
        assert guest.granted([msg.VF_SET_MACVLAN | 1 << 16, *mac_words(neighbour)]) is None
        assert pools_of(card, neighbour) == 0b10


def test_macvlan_filters_come_and_go_and_are_limited() -> None:
    with card_of(4) as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        limit = 128 - 16 - 4
        macs = [bytes([2, 0, 0, 0, 1, number]) for number in range(limit + 1)]
        granted = [
            guest.granted([msg.VF_SET_MACVLAN | (1 if number == 0 else 2) << 16, *mac_words(mac)])
            for number, mac in enumerate(macs)
        ]
        assert all(granted[:limit]) and granted[limit] is None
        assert [pools_of(card, mac) for mac in macs] == [1] * limit + [0]
        assert guest.record.spoof_check == 0
        assert guest.granted([msg.VF_SET_MACVLAN]) is not None
        assert not any(pools_of(card, mac) for mac in macs)
        assert card.facts.macvlans_left == limit
        guest.reset()
        assert guest.record.spoof_check == 1


def test_multicast_hashes_and_cast_modes() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset(msg.API_13)
        hashes = [0x000, 0xFFF, 0x123, 0x1234]
        words = [hashes[0] | hashes[1] << 16, hashes[2] | hashes[3] << 16]
        assert guest.granted([msg.VF_SET_MULTICAST | 4 << 16, *words]) is not None
        assert guest.multicast_bits() == {0, 0xFFF, 0x123, 0x234}
        granted = guest.granted([msg.VF_UPDATE_XCAST_MODE, msg.XCAST_MODE_MULTI])
        assert granted is not None and granted[1] == msg.XCAST_MODE_MULTI
        guest.granted([msg.VF_UPDATE_XCAST_MODE, msg.XCAST_MODE_NONE])
        assert guest.multicast_bits() == set()
        guest.reset()
        assert guest.multicast_bits() == set()


def test_an_untrusted_vf_gets_less_than_it_asks_for() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset(msg.API_13)
        for mode in (msg.XCAST_MODE_ALLMULTI, msg.XCAST_MODE_PROMISC):
            granted = guest.granted([msg.VF_UPDATE_XCAST_MODE, mode])
            assert granted is not None and granted[1] == msg.XCAST_MODE_MULTI
        assert (guest.record.all_multicast, guest.record.promiscuous) == (0, 0)


def test_a_trusted_vf_gets_all_multicast_but_an_82599_is_never_promiscuous() -> None:
    with card_of() as card:
        card.change(0, {"trust": "on"})
        guest = Guest(card.vfs[0])
        guest.reset(msg.API_13)
        granted = guest.granted([msg.VF_UPDATE_XCAST_MODE, msg.XCAST_MODE_ALLMULTI])
        assert granted is not None and granted[1] == msg.XCAST_MODE_ALLMULTI
        assert guest.record.all_multicast == 1
        assert guest.granted([msg.VF_UPDATE_XCAST_MODE, msg.XCAST_MODE_PROMISC]) is None
        assert guest.granted([msg.VF_UPDATE_XCAST_MODE, 4]) is None
        guest.reset(msg.API_11)
        assert guest.granted([msg.VF_UPDATE_XCAST_MODE, msg.XCAST_MODE_MULTI]) is None
        assert guest.record.all_multicast == 0


def test_the_hosts_own_function_may_be_promiscuous() -> None:
    with card_of(host_function=True) as card:
        assert card.host is not None
        guest = Guest(card.host)
        guest.reset(msg.API_13)
        assert guest.granted([msg.VF_UPDATE_XCAST_MODE, msg.XCAST_MODE_PROMISC]) is not None
        assert (guest.record.promiscuous, guest.record.spoof_check) == (1, 0)


def test_vlan_filters() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        assert guest.record.vlans == 0
        assert guest.granted([msg.VF_SET_VLAN | 1 << 16, 100]) is not None
        assert guest.state.vlan_pools[0, 100] == 1 and guest.record.vlans == 1
        assert guest.granted([msg.VF_SET_VLAN, 100]) is not None
        assert guest.state.vlan_pools[0, 100] == 0 and guest.record.vlans == 0
        assert guest.granted([msg.VF_SET_VLAN, 0]) is not None
        assert guest.state.vlan_pools[0, 0] & 1 == 1


def test_vlan_filters_run_out_at_the_chips_64() -> None:
    with card_of() as card:
        guest, other = Guest(card.vfs[0]), Guest(card.vfs[1])
        guest.reset()
        other.reset()
        granted = [guest.granted([msg.VF_SET_VLAN | 1 << 16, vlan]) for vlan in range(1, 65)]
        assert all(granted[:63]) and granted[63] is None
        assert other.granted([msg.VF_SET_VLAN | 1 << 16, 100]) is None
        assert other.granted([msg.VF_SET_VLAN | 1 << 16, 5]) is not None
        guest.reset()
        assert other.granted([msg.VF_SET_VLAN | 1 << 16, 100]) is not None


def test_in_a_port_vlan_the_guest_sets_none() -> None:
    with card_of() as card:
        card.change(0, {"vlan": 5, "qos": 3})
        guest = Guest(card.vfs[0])
        guest.reset()
        assert guest.granted([msg.VF_SET_VLAN | 1 << 16, 100]) is None
        assert guest.record.port_vlan == 5 | 3 << 13
        assert guest.state.vlan_pools[0, 0] & 1 == 0 and guest.state.vlan_pools[0, 5] & 1 == 1


@pytest.mark.parametrize(
    ("mtu", "api", "size", "max_frame"),
    [
        (1500, msg.API_10, 1518, 1514),
        (1500, msg.API_17, 1518, 1514),
        (1500, msg.API_17, 1519, None),
        (1500, msg.API_10, 9728, None),
        (9000, msg.API_17, 9728, 9724),
        (9000, msg.API_11, 1518, 1514),
        (9000, msg.API_10, 1518, None),
        (9710, msg.API_17, 9729, None),
        (1500, msg.API_17, 67, None),
        (1500, msg.API_17, 68, 1514),
        (1500, msg.API_11, 1514, 1514),  # iPXE, which counts no FCS
    ],
)
def test_frame_sizes_as_an_82599s_pf_grants_them(
    mtu: int, api: int, size: int, max_frame: int | None
) -> None:
    with card_of(mtu=mtu) as card:
        guest = Guest(card.vfs[0])
        guest.reset(api)
        assert guest.record.max_frame == (1514 if mtu == 1500 else 0)
        granted = guest.granted([msg.VF_SET_LPE, size]) is not None
        assert granted == (max_frame is not None)
        if max_frame is not None:
            assert guest.record.max_frame == max_frame


def test_rss_key_and_table_only_for_those_who_may_ask() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset(msg.API_12)
        assert guest.granted([msg.VF_GET_RETA]) is None
        assert guest.granted([msg.VF_GET_RSS_KEY]) is None
        card.change(0, {"query_rss": "on"})
        reta = guest.granted([msg.VF_GET_RETA])
        assert reta is not None and reta[1:9] == [0xE4E4E4E4] * 8
        key = guest.granted([msg.VF_GET_RSS_KEY])
        assert key is not None
        assert b"".join(word.to_bytes(4, "little") for word in key[1:11]) == KEY
        guest.reset(msg.API_11)
        assert guest.granted([msg.VF_GET_RETA]) is None
        assert guest.granted([msg.VF_GET_RSS_KEY]) is None


def test_link_state_and_features() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset(msg.API_17)
        answer = guest.granted([msg.VF_GET_LINK_STATE])
        assert answer is not None and answer[1] == 1
        features = guest.granted([msg.VF_FEATURES_NEGOTIATE, 0xFFFFFFFF])
        assert features is not None and features[1] == 0
        card.change(0, {"state": "disable"})
        guest.reset(msg.API_16)
        answer = guest.granted([msg.VF_GET_LINK_STATE])
        assert answer is not None and answer[1] == 0
        assert guest.granted([msg.VF_FEATURES_NEGOTIATE, 1]) is None
        guest.reset(msg.API_11)
        assert guest.granted([msg.VF_GET_LINK_STATE]) is None


@pytest.mark.parametrize("kind", [msg.VF_IPSEC_ADD, msg.VF_IPSEC_DEL, msg.VF_GET_PF_LINK_STATE, 0x07, 0x7777])
def test_what_an_82599s_pf_refuses(kind: int) -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        answer = guest.ask([kind, 1, 2, 3])
        assert answer[0] == kind | msg.MSGTYPE_NACK | msg.MSGTYPE_CTS


def test_answers_that_come_back_are_not_answered() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        bits = guest.send([msg.VF_RESET | msg.MSGTYPE_ACK])
        assert bits & regs.MAILBOX_PFACK and not bits & regs.MAILBOX_PFSTS


def test_a_link_change_is_told_with_cts_and_by_interrupt() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        guest.write(regs.VTIVAR_MISC, regs.IVAR_VALID | 2)
        guest.read(regs.VTEICR)
        card.set_link(False)
        assert guest.read(regs.VTEICR) == 1 << 2
        assert guest.read(regs.VFMAILBOX) & regs.MAILBOX_PFSTS
        assert guest.receive(1) == [msg.PF_CONTROL_MSG | msg.MSGTYPE_CTS]
        assert guest.read(regs.VFLINKS) == 0
        card.set_link(True)
        assert guest.read(regs.VFLINKS) == regs.LINKS_UP | regs.LINKS_SPEED_10G


def test_a_message_half_written_is_not_overwritten() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        guest.write(regs.VFMAILBOX, regs.MAILBOX_VFU)
        guest.write(regs.VFMBMEM, msg.VF_GET_QUEUES)
        card.set_link(False)
        assert guest.read(regs.VFMBMEM) == msg.VF_GET_QUEUES
        guest.write(regs.VFMAILBOX, regs.MAILBOX_REQ)
        assert guest.receive()[0] & msg.MSGTYPE_MASK == msg.VF_GET_QUEUES
        assert guest.receive(1) == [msg.PF_CONTROL_MSG | msg.MSGTYPE_CTS]


@pytest.mark.parametrize("changes", [{"state": "disable"}, {"trust": "on"}])
def test_what_makes_a_guest_reset_takes_cts_away(changes: dict[str, str]) -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.reset()
        card.change(0, changes)
        assert guest.receive(1) == [msg.PF_CONTROL_MSG]
        assert guest.receive(1) == [msg.MSGTYPE_NACK]
        assert guest.ask([msg.VF_GET_QUEUES])[0] == msg.VF_GET_QUEUES | msg.MSGTYPE_NACK
        guest.reset()
        assert guest.granted([msg.VF_GET_QUEUES]) is not None


@given(messages=st.lists(st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=16), max_size=20))
def test_hostile_messages_are_answered_and_harm_nobody(messages: list[list[int]]) -> None:
    with card_of(3) as card:
        guest = Guest(card.vfs[1])
        guest.reset()
        for words in messages:
            guest.send(words)
            guest.write(regs.VFMAILBOX, regs.MAILBOX_ACK)
        untouched(card)


def untouched(card) -> None:  # type: ignore[no-untyped-def]
    """VFs 0 and 2 are as they were, and VF 1 can be reset."""
    state = card.engine.state
    for index in (0, 2):
        assert pools_of(card, card.settings(index).mac) == 1 << index
        assert state.functions[index].max_frame == 1514
    assert all(int(word) & 0b101 == 0 for word in state.vlan_pools[0, 1:])


KINDS = [*range(0x13), msg.PF_CONTROL_MSG]


@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from(KINDS), st.integers(0, 255), st.lists(st.integers(0, 0xFFFFFFFF), max_size=15)
        ),
        max_size=30,
    )
)
def test_hostile_requests_of_every_kind(requests: list[tuple[int, int, list[int]]]) -> None:
    with card_of(3) as card:
        guest = Guest(card.vfs[1])
        guest.reset()
        for kind, information, words in requests:
            guest.send([kind | information << 16, *words])
            guest.write(regs.VFMAILBOX, regs.MAILBOX_ACK)
        untouched(card)
        assert guest.reset()[0] == msg.VF_RESET | msg.MSGTYPE_ACK
