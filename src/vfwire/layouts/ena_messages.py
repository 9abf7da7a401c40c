"""Every structure that an ENA driver and device exchange by DMA, as packed little-endian NumPy dtypes.

An admin queue entry is 64 bytes, so is its completion; both begin with a common head. A command for which the
entry is too short has a control buffer in host memory. An event is 64 bytes, too. Field names are those of the
vendor's headers. Sources: amzn-drivers `ena_admin_defs.h`, `ena_common_defs.h`; DPDK
`drivers/net/ena/base/ena_defs`.

    command     | command_id  opcode  flags | control buffer: length, address | feature | its parameters |
    completion  | command     status  flags   extended_status  sq_head_indx   | answer                   |
"""

import numpy as np

AQ_ENTRY_BYTES = 64
ACQ_ENTRY_BYTES = 64
AENQ_ENTRY_BYTES = 64

MEM_ADDR = np.dtype([("mem_addr_low", "<u4"), ("mem_addr_high", "<u2"), ("reserved16", "<u2")])
CTRL_BUFF_INFO = np.dtype([("length", "<u4"), ("address", MEM_ADDR)])
AQ_COMMON = np.dtype([("command_id", "<u2"), ("opcode", "u1"), ("flags", "u1")])
ACQ_COMMON = np.dtype(
    [
        ("command", "<u2"),
        ("status", "u1"),
        ("flags", "u1"),
        ("extended_status", "<u2"),
        ("sq_head_indx", "<u2"),
    ]
)
ACQ_ANSWER = ACQ_COMMON.itemsize  # where a completion's own part begins

# --- Queues: commands, then what their completions carry after the head ---------------------------------------
CREATE_SQ_CMD = np.dtype(
    [
        ("aq_common_descriptor", AQ_COMMON),
        ("sq_identity", "u1"),
        ("reserved8_w1", "u1"),
        ("sq_caps_2", "u1"),
        ("sq_caps_3", "u1"),
        ("cq_idx", "<u2"),
        ("sq_depth", "<u2"),
        ("sq_ba", MEM_ADDR),
        ("sq_head_writeback", MEM_ADDR),
        ("reserved0_w7", "<u4"),
        ("reserved0_w8", "<u4"),
    ]
)
CREATE_SQ_ANSWER = np.dtype(
    [
        ("sq_idx", "<u2"),
        ("reserved", "<u2"),
        ("sq_doorbell_offset", "<u4"),  # in BAR0
        ("llq_descriptors_offset", "<u4"),  # in BAR2
        ("llq_headers_offset", "<u4"),
    ]
)
SQ = np.dtype([("sq_idx", "<u2"), ("sq_identity", "u1"), ("reserved1", "u1")])
DESTROY_SQ_CMD = np.dtype([("aq_common_descriptor", AQ_COMMON), ("sq", SQ)])
CREATE_CQ_CMD = np.dtype(
    [
        ("aq_common_descriptor", AQ_COMMON),
        ("cq_caps_1", "u1"),
        ("cq_caps_2", "u1"),
        ("cq_depth", "<u2"),
        ("msix_vector", "<u4"),
        ("cq_ba", MEM_ADDR),
    ]
)
CREATE_CQ_ANSWER = np.dtype(
    [
        ("cq_idx", "<u2"),
        ("cq_actual_depth", "<u2"),
        ("numa_node_register_offset", "<u4"),  # in BAR0, as the next two; 0 for none
        ("cq_head_db_register_offset", "<u4"),
        ("cq_interrupt_unmask_register_offset", "<u4"),
    ]
)
DESTROY_CQ_CMD = np.dtype([("aq_common_descriptor", AQ_COMMON), ("cq_idx", "<u2"), ("reserved1", "<u2")])

# --- Features: the head of GET_FEATURE and SET_FEATURE; what follows at FEATURE_DATA, or in the answer --------
FEATURE_COMMON = np.dtype(
    [("flags", "u1"), ("feature_id", "u1"), ("feature_version", "u1"), ("reserved8", "u1")]
)
FEATURE_CMD = np.dtype(
    [
        ("aq_common_descriptor", AQ_COMMON),
        ("control_buffer", CTRL_BUFF_INFO),
        ("feat_common", FEATURE_COMMON),
        ("raw", "<u4", (11,)),
    ]
)
FEATURE_DATA = 20  # offset of `raw`

DEVICE_ATTR = np.dtype(
    [
        ("impl_id", "<u4"),
        ("device_version", "<u4"),
        ("supported_features", "<u4"),
        ("capabilities", "<u4"),
        ("phys_addr_width", "<u4"),
        ("virt_addr_width", "<u4"),
        ("mac_addr", "u1", (6,)),
        ("flow_steering_max_entries", "<u2"),
        ("max_mtu", "<u4"),
    ]
)
MAX_QUEUES = np.dtype(
    [
        ("max_sq_num", "<u4"),
        ("max_sq_depth", "<u4"),
        ("max_cq_num", "<u4"),
        ("max_cq_depth", "<u4"),
        ("max_legacy_llq_num", "<u4"),
        ("max_legacy_llq_depth", "<u4"),
        ("max_header_size", "<u4"),
        ("max_packet_tx_descs", "<u2"),
        ("max_packet_rx_descs", "<u2"),
    ]
)
MAX_QUEUES_EXT = np.dtype(
    [
        ("version", "u1"),
        ("reserved1", "u1", (3,)),
        ("max_tx_sq_num", "<u4"),
        ("max_tx_cq_num", "<u4"),
        ("max_rx_sq_num", "<u4"),
        ("max_rx_cq_num", "<u4"),
        ("max_tx_sq_depth", "<u4"),
        ("max_tx_cq_depth", "<u4"),
        ("max_rx_sq_depth", "<u4"),
        ("max_rx_cq_depth", "<u4"),
        ("max_tx_header_size", "<u4"),
        ("max_per_packet_tx_descs", "<u2"),
        ("max_per_packet_rx_descs", "<u2"),
    ]
)
LLQ_DESC = np.dtype(
    [
        ("max_llq_num", "<u4"),
        ("max_llq_depth", "<u4"),
        ("header_location_ctrl_supported", "<u2"),
        ("header_location_ctrl_enabled", "<u2"),
        ("entry_size_ctrl_supported", "<u2"),
        ("entry_size_ctrl_enabled", "<u2"),
        ("desc_num_before_header_supported", "<u2"),
        ("desc_num_before_header_enabled", "<u2"),
        ("descriptors_stride_ctrl_supported", "<u2"),
        ("descriptors_stride_ctrl_enabled", "<u2"),
        ("feature_version", "u1"),
        ("entry_size_recommended", "u1"),
        ("max_wide_llq_depth", "<u2"),
        ("accel_flags", "<u2"),  # accel_mode: supported_flags in an answer, enabled_flags in a command
        ("max_tx_burst_size", "<u2"),  # bytes between two doorbells
        ("accel_raw", "<u4"),
    ]
)
MTU_DESC = np.dtype([("mtu", "<u4")])
EXTRA_PROPERTIES_STRINGS_DESC = np.dtype([("count", "<u4")])
EXTRA_PROPERTIES_FLAGS_DESC = np.dtype([("flags", "<u4")])
HOST_ATTR = np.dtype([("os_info_ba", MEM_ADDR), ("debug_ba", MEM_ADDR), ("debug_area_size", "<u4")])
INTR_MODER = np.dtype([("intr_delay_resolution", "<u2"), ("reserved", "<u2")])
LINK_DESC = np.dtype([("speed", "<u4"), ("supported", "<u4"), ("flags", "<u4")])  # speed in Mbit/s
AENQ_DESC = np.dtype([("supported_groups", "<u4"), ("enabled_groups", "<u4")])
OFFLOAD = np.dtype([("tx", "<u4"), ("rx_supported", "<u4"), ("rx_enabled", "<u4")])
HW_HINTS_DESC = np.dtype(
    [
        ("mmio_read_timeout", "<u2"),  # ms, as all that are times
        ("driver_watchdog_timeout", "<u2"),
        ("missing_tx_completion_timeout", "<u2"),
        ("missed_tx_completion_count_threshold_to_reset", "<u2"),
        ("admin_completion_tx_timeout", "<u2"),
        ("netdev_wd_timeout", "<u2"),
        ("max_tx_sgl_size", "<u2"),
        ("max_rx_sgl_size", "<u2"),
        ("reserved", "<u2", (8,)),
    ]
)
PHC_DESC = np.dtype(
    [
        ("version", "u1"),
        ("reserved1", "u1", (3,)),
        ("doorbell_offset", "<u4"),
        ("expire_timeout_usec", "<u4"),
        ("block_timeout_usec", "<u4"),
        ("output_address", MEM_ADDR),
        ("output_length", "<u4"),
    ]
)

# --- RSS: the first of each pair lies in the entry, the second in the control buffer --------------------------
HASH_FUNCTION = np.dtype([("supported_func", "<u4"), ("selected_func", "<u4"), ("init_val", "<u4")])
HASH_KEY = np.dtype([("key_parts", "<u4"), ("reserved", "<u4"), ("key", "<u4", (10,))])
HASH_INPUT = np.dtype([("supported_input_sort", "<u2"), ("enabled_input_sort", "<u2")])
PROTO_INPUT = np.dtype([("fields", "<u2"), ("reserved2", "<u2")])
HASH_CONTROL = np.dtype(
    [
        ("supported_fields", PROTO_INPUT, (16,)),
        ("selected_fields", PROTO_INPUT, (16,)),
        ("reserved2", PROTO_INPUT, (16,)),
        ("reserved3", PROTO_INPUT, (16,)),
    ]
)
IND_TABLE_ENTRY = np.dtype([("cq_idx", "<u2"), ("reserved", "<u2")])  # drivers put the index of the SQ here
IND_TABLE = np.dtype(
    [
        ("min_size", "<u2"),  # log2, as the next two
        ("max_size", "<u2"),
        ("size", "<u2"),
        ("flags", "u1"),
        ("reserved", "u1"),
        ("inline_index", "<u4"),  # 0xFFFFFFFF: the whole table, in the control buffer
        ("inline_entry", IND_TABLE_ENTRY),
    ]
)

# --- Statistics -----------------------------------------------------------------------------------------------
GET_STATS_CMD = np.dtype(
    [
        ("aq_common_descriptor", AQ_COMMON),
        ("control_buffer", CTRL_BUFF_INFO),
        ("type", "u1"),
        ("scope", "u1"),
        ("reserved3", "<u2"),
        ("queue_idx", "<u2"),
        ("device_id", "<u2"),
        ("requested_metrics", "<u8"),
    ]
)
BASIC_STATS = np.dtype(
    [
        ("tx_bytes_low", "<u4"),
        ("tx_bytes_high", "<u4"),
        ("tx_pkts_low", "<u4"),
        ("tx_pkts_high", "<u4"),
        ("rx_bytes_low", "<u4"),
        ("rx_bytes_high", "<u4"),
        ("rx_pkts_low", "<u4"),
        ("rx_pkts_high", "<u4"),
        ("rx_drops_low", "<u4"),
        ("rx_drops_high", "<u4"),
        ("tx_drops_low", "<u4"),
        ("tx_drops_high", "<u4"),
        ("rx_overruns_low", "<u4"),
        ("rx_overruns_high", "<u4"),
    ]
)
ENI_STATS = np.dtype(
    [
        ("bw_in_allowance_exceeded", "<u8"),
        ("bw_out_allowance_exceeded", "<u8"),
        ("pps_allowance_exceeded", "<u8"),
        ("conntrack_allowance_exceeded", "<u8"),
        ("linklocal_allowance_exceeded", "<u8"),
    ]
)
SRD_STATS = np.dtype(
    [
        ("ena_srd_tx_pkts", "<u8"),
        ("ena_srd_eligible_tx_pkts", "<u8"),
        ("ena_srd_rx_pkts", "<u8"),
        ("ena_srd_resource_utilization", "<u8"),
    ]
)
SRD_INFO = np.dtype([("flags", "<u8"), ("ena_srd_stats", SRD_STATS)])
CUSTOMER_METRICS = np.dtype([("reported_metrics", "<u8")])

# --- Events ---------------------------------------------------------------------------------------------------
AENQ_COMMON = np.dtype(
    [
        ("group", "<u2"),
        ("syndrome", "<u2"),
        ("flags", "u1"),
        ("reserved1", "u1", (3,)),
        ("timestamp_low", "<u4"),
        ("timestamp_high", "<u4"),
    ]
)
EVENT_DATA = AENQ_COMMON.itemsize  # where an event's own part begins
LINK_CHANGE_EVENT = np.dtype([("flags", "<u4")])
KEEP_ALIVE_EVENT = np.dtype(
    [
        ("rx_drops_low", "<u4"),
        ("rx_drops_high", "<u4"),
        ("tx_drops_low", "<u4"),
        ("tx_drops_high", "<u4"),
        ("rx_overruns_low", "<u4"),
        ("rx_overruns_high", "<u4"),
    ]
)
CONF_NOTIFICATIONS_EVENT = np.dtype([("notifications_bitmap", "<u8"), ("reserved", "<u8")])

# --- What the device writes at an address of its own ----------------------------------------------------------
MMIO_RESPONSE = np.dtype([("req_id", "<u2"), ("reg_off", "<u2"), ("reg_val", "<u4")])
PHC_RESPONSE = np.dtype(
    [
        ("req_id", "<u2"),
        ("reserved1", "u1", (6,)),
        ("timestamp", "<u8"),  # ns
        ("reserved2", "u1", (8,)),
        ("error_bound", "<u4"),  # ns
        ("error_flags", "<u4"),
        ("reserved3", "u1", (32,)),
    ]
)

# --- What the host writes about itself, in a page of its own --------------------------------------------------
HOST_INFO = np.dtype(
    [
        ("os_type", "<u4"),
        ("os_dist_str", "S128"),
        ("os_dist", "<u4"),
        ("kernel_ver_str", "S32"),
        ("kernel_ver", "<u4"),
        ("driver_version", "<u4"),
        ("supported_network_features", "<u4", (2,)),
        ("ena_spec_version", "<u2"),
        ("bdf", "<u2"),
        ("num_cpus", "<u2"),
        ("reserved", "<u2"),
        ("driver_supported_features", "<u4"),
    ]
)
HOST_INFO_BYTES = 4096
