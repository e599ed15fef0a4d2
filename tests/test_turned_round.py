"""Which test shows that a weakness of the specifications is turned round, and a fault of the fleet survived.

Keys are items: ``A1`` to ``E34`` of fleet-model.md section 12, ``10.1-1`` to ``10.1-12`` of accounts-profiles.md. Each names
its tests, wherever they are; one that is renamed or removed is missed here. What is not turned round is said, with why.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent

ITEMS = (
    *(f"A{n}" for n in range(1, 9)),
    *(f"B{n}" for n in range(9, 17)),
    *(f"C{n}" for n in range(17, 27)),
    *(f"D{n}" for n in range(27, 31)),
    *(f"E{n}" for n in range(31, 35)),
    *(f"10.1-{n}" for n in range(1, 13)),
)

SHOWN = {
    "A1": """
        test_who_may_drive_a_node
        test_only_the_anchors_clients_get_in
        test_names_of_clients_can_be_limited""",
    "A2": """
        test_what_is_due_is_renewed_once
        test_its_certificate_is_renewed_at_two_thirds_of_its_life_and_the_links_hear_of_it
        test_one_that_was_off_for_two_years_starts_with_a_fresh_certificate
        test_the_controllers_certificate_is_renewed_without_dropping_a_link
        test_revocation_is_honoured_at_once_and_a_new_enrolment_heals""",
    "A3": """
        test_a_route_is_taken_or_refused_never_ignored
        test_a_database_that_does_not_answer_is_no_reason_to_go_directly
        test_a_hop_that_is_not_fit_any_more_is_refused_and_not_gone_round
        test_directly_again_only_where_that_is_said""",
    "A4": """
        test_nothing_is_sent_to_a_host_with_another_key
        test_an_unconfirmed_host_key_is_where_it_ends
        test_a_changed_host_key_is_refused_until_the_operator_says_otherwise""",
    "A5": """
        test_what_is_behind_a_url_needs_its_digest
        test_units_are_sandboxed_and_start_inner_links_first
        test_a_user_who_may_not_become_root""",
    "A6": """
        test_no_private_key_lies_open_anywhere
        test_authorities_come_back_from_the_store_and_nothing_in_it_is_in_clear
        test_no_key_is_in_the_database_in_the_clear""",
    "B9": """
        test_deleting_takes_peers_from_the_nodes_at_once
        test_whoever_falls_in_between_nobody_stays_on_who_was_revoked""",
    "B10": """
        test_b10_a_slow_push_never_brings_an_older_set_back
        test_an_operators_push_never_carries_a_revoked_peer""",
    "B11": """
        test_a_database_that_was_put_back_is_noticed_whatever_its_numbers_say
        test_a_revision_from_the_future_is_adopted_and_told
        test_a_node_that_has_seen_higher_revisions_is_caught_up_with""",
    "B12": """
        test_b12_a_policy_goes_out_by_itself_and_takes_nothing_of_a_path_along
        test_a_policy_is_in_force_from_the_start_and_follows_the_inventory""",
    "B13": """
        test_b13_a_binding_that_cannot_be_wired_costs_nobody_else_and_mends_itself
        test_one_bad_binding_is_left_out_and_said_and_nobody_else_notices""",
    "B14": """
        test_b14_an_idle_node_is_left_alone_and_one_miss_is_no_outage
        test_handshakes_that_ceased_are_healed_once_for_each_silence
        test_xray_that_an_agent_forgot_is_pushed_without_the_peers
        test_a_node_that_never_answers_is_degraded_then_unreachable_then_back
        test_disabled_is_stopped_and_comes_back""",
    "B15": "test_what_changes_of_a_node_makes_profiles_stale_and_leaves_its_policy",
    "B16": """
        test_adding_a_profile_cuts_no_live_tunnel
        test_rotation_is_on_request_and_keeps_addresses
        test_whatever_changes_these_hold""",
    "C17": """
        test_a_reboot_of_every_node_brings_the_path_back
        test_an_entry_whose_unit_brings_links_up_survives_its_reboot
        test_a_start_whose_policy_and_links_fail_serves_and_tells""",
    "C18": """
        test_links_of_an_earlier_process_are_restored_and_removed
        test_a_link_of_before_a_restart_is_really_removed
        test_and_a_path_that_then_takes_its_place_works""",
    "C19": """
        test_the_same_policy_again_and_again_loses_no_packet
        test_a_link_needs_one_rule_and_one_table_however_many_it_carries
        test_a_transaction_that_fails_leaves_the_old_rules""",
    "C20": "test_a_missing_link_fails_closed_and_is_mended",
    "C21": """
        test_a_device_with_nothing_but_xray_is_refused_and_told_why
        test_xray_cannot_follow_a_path""",
    "C22": "test_a_path_in_use_stays_and_so_do_its_nodes",
    "C23": "test_a_path_whose_node_is_away_is_taken_back_whole",
    "C24": """
        test_the_mtu_counts_headers_and_noise
        test_less_than_1280_is_refused_and_said_why
        test_the_mtu_leaves_room_for_padding
        test_full_size_packets_pass_without_fragmentation""",
    "C25": """
        test_the_device_keeps_nothing_of_its_own_where_its_path_passes
        test_a_switch_leaves_no_moment_without_a_whole_route
        test_the_old_path_is_not_cut_when_the_new_one_cannot_be_made_ready
        test_how_a_link_is_shows_at_both_of_its_ends
        test_the_order_of_everything_is_the_same_whatever_the_order_it_came_in""",
    "C26": "test_three_hops_in_both_families",
    "D27": """
        test_one_session_serves_all_nodes_and_what_changes_the_route_moves_all
        test_a_relay_that_is_busy_by_another_way_is_taken_over""",
    "D28": """
        test_every_link_comes_over_and_nothing_goes_beside
        test_a_path_that_does_not_work_is_not_taken_and_the_hop_is_named
        test_what_can_be_no_path_is_refused_by_name""",
    "D29": """
        test_no_keepalive_that_an_agent_would_punish
        test_a_cut_stream_is_opened_again
        test_a_node_that_never_answers_is_degraded_then_unreachable_then_back""",
    "D30": """
        test_a_node_and_a_relay_share_a_machine_but_no_port
        test_roles_that_do_not_fit""",
    "E31": "test_an_address_that_is_taken_is_waited_for_and_brings_nobody_down",
    "E32": """
        test_an_upgrade_and_a_rollback
        test_an_upgrade_whose_agent_dies_is_taken_back
        test_a_rollout_stops_at_the_first_batch_that_fails_and_can_be_taken_back
        test_the_wrong_architecture_is_refused_before_anything_is_installed
        test_removal_leaves_nothing_behind
        test_the_version_of_a_candidate_is_read_and_not_run""",
    "E33": """
        test_the_document_of_the_contract
        test_what_has_no_effect_yet_or_could_be_safer_is_a_warning
        test_a_wrong_value_is_named_with_what_would_do
        test_how_a_link_is_shows_at_both_of_its_ends""",
    "E34": """
        test_many_at_once_until_no_address_is_left
        test_one_address_is_one_credential""",
    "10.1-3": "test_adding_a_profile_cuts_no_live_tunnel",
    "10.1-4": """
        test_a_profile_that_cannot_be_served_is_skipped_and_follows_when_it_can
        test_a_node_that_profiles_lead_to_is_not_removed""",
    "10.1-5": "test_deleting_takes_peers_from_the_nodes_at_once",
    "10.1-6": "test_what_changes_of_a_node_makes_profiles_stale_and_leaves_its_policy",
    "10.1-7": """
        test_many_at_once_until_no_address_is_left
        test_the_range_of_addresses""",
    "10.1-8": "test_many_revisions_grow_at_once",
    "10.1-9": """
        test_the_document_of_the_contract
        test_what_has_no_effect_yet_or_could_be_safer_is_a_warning""",
    "10.1-12": """
        test_a_leaf_never_outlives_its_issuer
        test_renewal_is_due_after_two_thirds_and_well_before_the_end
        test_an_intermediate_hands_over_before_it_ends
        test_a_node_that_was_given_both_is_driven_by_either
        test_the_controller_keeps_its_issuer_while_a_node_does_not_trust_the_heir
        test_what_is_due_is_renewed_once""",
}

OPEN = {
    "A7": "egress and onion listeners are the relay's, which is a program of its own",
    "A8": "no firewall is set up: whoever has no certificate of the control CA is turned away, but at the handshake",
    "10.1-1": "joining by a link (AccountSync) is not there yet",
    "10.1-2": "as 10.1-1",
    "10.1-10": "as 10.1-1; a device that the API made is exported as a file",
    "10.1-11": "as 10.1-1; devices have no certificates yet",
}
"""What is not turned round."""

FAULTS = {
    "SSH dropped at every step": """
        test_the_line_breaks_at_every_step_of_taking_a_machine_in
        test_the_line_breaks_at_every_command
        test_the_line_breaks_at_every_command_of_the_way_back
        test_every_kind_of_operation_on_machines_is_in_it
        test_the_line_breaks_at_every_step_of_an_upgrade_and_of_its_way_back""",
    "disk full on the host": """
        test_a_full_disk_on_the_host
        test_a_full_disk_leaves_the_old_file_and_says_so""",
    "wrong architecture": "test_the_wrong_architecture_is_refused_before_anything_is_installed",
    "host key changed": "test_a_changed_host_key_is_refused_until_the_operator_says_otherwise",
    "agent that starts and dies": """
        test_an_agent_that_starts_and_dies_says_why
        test_an_upgrade_whose_agent_dies_is_taken_back""",
    "certificate push interrupted": """
        test_the_line_breaks_at_every_command
        test_the_line_breaks_while_a_renewed_certificate_is_pushed""",
    "controller killed at every step of an onboarding": """
        test_the_controller_is_killed_at_every_step
        test_the_controller_is_killed_in_the_middle_of_the_login_with_a_password""",
    "controller killed at every step of a cascade": """
        test_a_controller_that_falls_while_a_path_is_built
        test_a_controller_that_falls_in_the_middle_of_a_switch
        test_a_controller_that_falls_where_two_routes_cross""",
    "controller killed at every step of a rollout": """
        test_the_controller_is_killed_at_every_step_of_a_rollout
        test_the_controller_is_killed_in_a_batch_of_a_rollout_and_on_its_way_back""",
}


@functools.cache
def known_names() -> frozenset[str]:
    files = (path.read_text() for path in TESTS.rglob("test_*.py"))
    return frozenset(name for text in files for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))


def test_every_item_is_shown_or_said_to_be_open() -> None:
    assert sorted(SHOWN.keys() | OPEN.keys()) == sorted(ITEMS)
    assert not SHOWN.keys() & OPEN.keys()


@pytest.mark.parametrize("name", [*SHOWN, *FAULTS])
def test_its_tests_are_there(name: str) -> None:
    tests = (SHOWN | FAULTS)[name].split()
    assert tests
    assert not set(tests) - known_names()
