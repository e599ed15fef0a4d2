"""Which test shows that a weakness of the specifications is turned round, and a fault of the fleet survived.

Keys are items: ``A1`` to ``E34`` of fleet-model.md section 12, ``10.1-1`` to ``10.2-22`` of accounts-profiles.md, ``M1`` to
``M49`` of management-plane.md section 13. Each names its tests, wherever they are; one that is renamed or removed is missed
here. What is not turned round is said, with why.
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
    *(f"10.2-{n}" for n in range(13, 23)),
    *(f"M{n}" for n in range(1, 50)),
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
        test_a_changed_host_key_is_refused_until_the_operator_says_otherwise
        test_a_key_that_was_not_the_hosts_is_turned_down_and_the_pinned_one_counts_again""",
    "A5": """
        test_what_is_behind_a_url_needs_its_digest
        test_only_what_the_release_key_signed_is_installed
        test_units_are_sandboxed_and_start_inner_links_first
        test_units_have_no_root_and_nothing_in_them_is_run_as_root
        test_an_agent_is_no_root_and_neither_are_its_files
        test_a_roots_agent_is_taken_over_and_comes_back
        test_what_a_hostile_agent_leaves_in_its_directories_gets_it_nothing
        test_a_relay_is_no_root
        test_it_has_two_capabilities_and_nobodys_files
        test_what_it_may_not_touch
        test_a_host_changes_between_root_and_no_root_in_place
        test_a_user_who_may_not_become_root""",
    "A6": """
        test_no_private_key_lies_open_anywhere
        test_authorities_come_back_from_the_store_and_nothing_in_it_is_in_clear
        test_no_key_is_in_the_database_in_the_clear""",
    "A7": """
        test_a_setup_is_good_once
        test_only_allowed_targets_are_dialled
        test_a_relay_of_ours_that_nobody_told_where_it_may_connect_does_not_start_and_says_what_to_give
        test_nobody_elses_word_is_taken
        test_an_older_one_is_not_taken_and_the_same_one_again_is_fine
        test_where_relays_may_connect_follows_the_inventory_and_whoever_else_asks_gets_nothing
        test_what_only_the_host_reaches_is_allowed_only_where_an_entry_is_it
        test_a_relay_s_certificate_opens_no_egress""",
    "A8": """
        test_the_control_port_is_reached_from_where_it_is_said_and_nothing_else_is_touched
        test_it_is_as_configured_from_the_start_follows_and_is_removed
        test_rules_that_shut_this_controller_out_are_taken_back""",
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
        test_of_a_device_with_both_it_is_said_that_its_xray_leaves_at_the_entry
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
        test_an_exit_that_is_gone_is_left_and_used_again_when_it_is_well
        test_where_nobody_is_fit_nothing_moves_and_it_is_told
        test_a_device_follows_its_path_to_the_fallback_and_home
        test_a_controller_that_falls_while_an_exit_changes_carries_it_out
        test_the_order_of_everything_is_the_same_whatever_the_order_it_came_in""",
    "C26": """
        test_three_hops_in_both_families
        test_ipv6_is_gained_follows_paths_is_isolated_and_is_cut
        test_nothing_leaks_where_an_agent_cannot_keep_it
        test_no_ipv6_leaves_before_the_exit_whoever_of_the_nodes_can_carry_it
        test_devices_gain_and_lose_an_address_and_keep_their_keys""",
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
        test_what_has_no_effect_is_accepted_and_said_wherever_it_is_set
        test_a_wrong_value_is_named_with_what_would_do
        test_links_to_fallbacks_stand_ready_and_the_operator_may_use_them
        test_how_a_link_is_shows_at_both_of_its_ends
        test_every_port_of_the_range_leads_to_the_tunnel_and_none_beside_it
        test_a_session_goes_on_when_its_client_changes_ports
        test_it_needs_no_forwarding_and_outlives_the_agent
        test_a_range_that_is_cleared_or_moved_is_gone
        test_a_range_is_told_when_the_agent_has_it_and_no_longer_than_it_is_wanted
        test_an_existing_agent_stays_at_443_and_it_is_said
        test_what_a_device_is_told_leads_into_its_tunnel
        test_a_node_has_a_decoy_of_its_own_and_no_other_hears_of_it""",
    "E34": """
        test_many_at_once_until_no_address_is_left
        test_one_address_is_one_credential""",
    "10.1-1": """
        test_a_claim_that_is_refused_burns_nothing
        test_a_ticket_is_unused_or_its_device_is_whole
        test_of_many_who_claim_at_once_one_is_let_in
        test_who_lost_the_first_sync_may_claim_once_more""",
    "10.1-2": "test_from_an_invite_to_a_peer_on_every_node_at_once",
    "10.1-3": "test_adding_a_profile_cuts_no_live_tunnel",
    "10.1-4": """
        test_a_profile_that_cannot_be_served_is_skipped_and_follows_when_it_can
        test_a_node_that_profiles_lead_to_is_not_removed
        test_a_path_in_use_stays_and_so_do_its_nodes""",
    "10.1-5": """
        test_deleting_takes_peers_from_the_nodes_at_once
        test_sessions_have_the_names_of_what_is_gone
        test_a_user_goes_and_its_name_stays_with_those_of_its_devices
        test_a_name_is_kept_as_long_as_anything_mentions_it""",
    "10.1-6": """
        test_what_changes_of_a_node_makes_profiles_stale_and_leaves_its_policy
        test_what_changes_is_in_the_next_sync_and_keys_are_kept
        test_what_every_device_is_given_is_another_once
        test_a_sync_that_changes_nothing_gives_the_same_bundle""",
    "10.1-7": """
        test_many_at_once_until_no_address_is_left
        test_many_at_once_until_none_is_left
        test_an_address_is_one_devices_exactly_when_its_ipv4_address_is
        test_the_document_has_it_in_a_key_that_existing_clients_pass_over
        test_the_range_of_addresses""",
    "10.1-8": """
        test_many_revisions_grow_at_once
        test_old_bundles_are_forgotten_and_the_rest_is_ciphertext""",
    "10.1-9": """
        test_the_document_of_the_contract
        test_what_has_no_effect_is_accepted_and_said_wherever_it_is_set""",
    "10.1-10": """
        test_a_device_that_the_api_made_can_join
        test_an_invite_may_name_a_device_of_the_user""",
    "10.1-11": """
        test_a_device_enrols_anew_in_its_own_place
        test_certificates_of_devices_that_end_soon
        test_a_devices_leaf""",
    "10.1-12": """
        test_a_leaf_never_outlives_its_issuer
        test_renewal_is_due_after_two_thirds_and_well_before_the_end
        test_an_intermediate_hands_over_before_it_ends
        test_a_node_that_was_given_both_is_driven_by_either
        test_the_controller_keeps_its_issuer_while_a_node_does_not_trust_the_heir
        test_what_is_due_is_renewed_once""",
    "10.2-13": """
        test_an_invite_is_a_link_that_clients_read_and_a_picture_of_it
        test_a_revoked_one_stays_so
        test_the_record_of_a_claim
        test_tickets_that_are_no_good_are_not_told_apart
        test_a_new_device_that_is_not_where_its_user_is
        test_a_new_device_is_first_seen_where_its_user_never_was
        test_a_link_that_is_tried_after_it_was_used_is_told_and_harder_from_another_side""",
    "10.2-14": """
        test_only_relays_may_speak
        test_a_relay_that_was_removed_may_not_either""",
    "10.2-15": """
        test_without_it_being_switched_on_no_password_is_looked_at
        test_passwords_that_are_not_right
        test_guesses_are_throttled_whichever_relay_they_come_through""",
    "10.2-16": """
        test_a_revoked_device_has_no_sync_and_no_peer
        test_nobody_of_a_suspended_user_gets_anything""",
    "10.2-17": "test_a_legacy_device_from_its_account_to_its_profile",
    "10.2-18": "test_a_session_is_for_its_device_and_for_ten_minutes",
    "10.2-19": """
        test_authorities_come_back_from_the_store_and_nothing_in_it_is_in_clear
        test_no_key_is_in_the_database_in_the_clear
        test_old_bundles_are_forgotten_and_the_rest_is_ciphertext""",
    "10.2-20": """
        test_a_flood_of_claims_is_turned_away_and_hardly_recorded
        test_guesses_are_throttled_whichever_relay_they_come_through
        test_a_device_that_syncs_without_a_pause_is_slowed_down
        test_where_there_is_no_account_as_much_is_hashed_as_where_there_is_one""",
    "10.2-21": """
        test_every_change_of_a_record_takes_the_version_that_its_author_saw
        test_admins_are_not_to_be_had_through_users
        test_there_is_always_one_who_can_log_in
        test_a_claim_without_names_has_some_and_long_ones_are_cut""",
    "10.2-22": """
        test_too_short_and_too_long_ones_are_refused_without_showing_them
        test_one_key_held_down_is_no_password
        test_nor_is_its_owners_name
        test_how_long_a_new_password_is_at_least_is_the_operators
        test_a_changed_password_ends_the_other_sessions""",
    "M1": "test_one_key_on_two_nodes_is_two_sessions",
    "M2": """
        test_a_roam_is_the_same_session_and_loses_no_byte
        test_a_roam_ends_one_segment_and_begins_the_next""",
    "M3": """
        test_a_node_that_came_back_carries_its_sessions_on
        test_sessions_are_right_although_every_event_is_lost""",
    "M4": """
        test_a_new_run_of_the_daemon_carries_open_sessions_on
        test_a_restart_of_the_controller_in_the_middle_changes_no_count""",
    "M5": """
        test_what_was_heard_before_an_orderly_stop_is_kept
        test_after_a_restart_of_the_controller_the_next_snapshot_decides
        test_a_node_that_never_comes_back_after_a_restart_has_its_sessions_closed""",
    "M7": "test_who_a_peer_belongs_to_is_forgotten_when_told",
    "M8": """
        test_the_future_is_not_believed_but_kept
        test_a_stamp_from_another_decade_is_not_believed_in_either_direction""",
    "M9": """
        test_a_node_from_its_first_day_to_its_last
        test_one_session_serves_all_nodes_and_what_changes_the_route_moves_all""",
    "M10": """
        test_a_page_of_another_origin_changes_nothing
        test_who_does_not_answer_is_given_up_and_who_does_stays_however_busy_the_stream
        test_a_stream_ends_with_the_credential_it_was_granted_for
        test_numbers_go_on_over_a_restart_of_the_daemon
        test_who_comes_back_too_late_is_told_how_many_are_gone
        test_a_change_reaches_every_dashboard_but_who_made_it_only_admins""",
    "M11": """
        test_whole_sessions
        test_totals
        test_an_export_has_every_session_once_whatever_the_pages
        test_every_combination_of_filters_finds_what_looking_at_all_finds
        test_pages_follow_each_other_without_gap_or_repeat
        test_a_series_has_every_stretch_and_no_zero_for_what_nobody_knows
        test_records_and_sessions_by_country
        test_a_country_is_found_by_an_index_whatever_it_is_asked_with
        test_without_a_database_of_places_a_country_is_not_simply_empty""",
    "M6": """
        test_what_is_not_known_is_null
        test_unknown_bytes_and_parts_of_sessions_do_not_drag_the_usual_down""",
    "M12": """
        test_events_become_alerts_once_and_handled_ones_stay_handled
        test_what_was_resolved_comes_back_only_with_something_new
        test_one_that_is_resolved_while_the_node_is_down_stays_so_until_the_node_was_up""",
    "M13": """
        test_what_becomes_worse_is_told_again_whoever_acknowledged_or_snoozed_it
        test_an_error_after_an_outage_makes_it_worse_and_is_told_again
        test_nodes_that_fall_together_are_one_transaction_and_end_by_themselves""",
    "M14": """
        test_what_left_the_window_is_remembered_when_retention_takes_it
        test_nothing_is_remembered_twice""",
    "M15": """
        test_a_phone_that_goes_from_wifi_to_mobile_and_back_is_no_leak
        test_dual_stack_and_a_providers_pool_are_one_place
        test_two_networks_at_the_same_time_are_a_leak
        test_the_latest_leak_of_the_day_is_told""",
    "M16": "test_a_new_country_needs_an_old_one",
    "M17": """
        test_slow_tries_from_everywhere_show_by_account
        test_tries_at_many_accounts_from_everywhere_show_in_the_sum
        test_an_address_that_many_share_counts_for_nothing_by_itself""",
    "M18": """
        test_a_revoked_device_that_connects_is_told
        test_a_revoked_device_that_stays_connected""",
    "M19": """
        test_a_node_that_the_operator_stops_is_nobodys_alarm
        test_a_missed_poll_is_no_alarm
        test_recovery_takes_longer_for_each_time_that_it_fell
        test_b14_an_idle_node_is_left_alone_and_one_miss_is_no_outage""",
    "M20": "test_only_devices_with_new_events_are_looked_at",
    "M21": "test_rules_can_be_switched_off_and_told_whom_to_leave_alone",
    "M22": """
        test_drift_that_cannot_be_mended
        test_what_ends_soon
        test_a_log_that_is_not_intact
        test_new_admins_and_tokens
        test_a_login_after_many_failures
        test_passwords_that_are_guessed_through_relays_show_by_account_and_in_the_sum
        test_peers_that_nobody_made
        test_a_full_disk
        test_what_was_dropped_on_its_way_is_told_once_and_again_only_with_more
        test_events_that_cannot_be_read_are_counted_with_their_node
        test_a_consumer_that_does_not_read_costs_nothing_and_is_told_what_it_missed""",
    "M23": """
        test_the_newest_rows_are_cut
        test_a_cut_tail_is_whole_in_itself_and_shows_only_against_an_earlier_root
        test_everything_was_rewritten_while_it_was_stopped""",
    "M24": "test_blanked_hashes_are_never_filled_in_again",
    "M25": """
        test_retention_leaves_a_log_that_verifies
        test_retention_takes_payloads_and_the_log_still_verifies""",
    "M26": """
        test_any_order_of_changes_appends_and_crashes_gives_a_gapless_log_of_each_once
        test_a_clock_that_is_set_back_does_not_hold_records_for_ever""",
    "M27": """
        test_every_route_that_may_change_something_has_a_row
        test_each_leaves_its_record
        test_every_command_has_a_row
        test_the_first_refusals_have_records_and_the_rest_are_counted
        test_who_has_no_good_token_stays_out_and_is_recorded""",
    "M28": """
        test_attempts_are_throttled_by_account_and_by_address
        test_only_so_many_hash_at_once_and_only_so_many_wait
        test_where_there_is_no_account_as_much_is_hashed_as_where_there_is_one
        test_a_thousand_logins_a_second_hurt_nobody""",
    "M29": """
        test_admins_are_not_to_be_had_through_users
        test_there_is_always_one_who_can_log_in""",
    "M30": """
        test_a_listen_address_beyond_loopback_takes_a_word
        test_a_foreign_host_is_refused_whatever_credential_it_brings
        test_a_form_of_another_site_is_refused_twice_over
        test_a_body_of_more_than_a_mebibyte_is_refused
        test_every_answer_carries_the_security_headers
        test_the_cookie_is_for_us_alone""",
    "M31": """
        test_a_session_ends_when_it_idles_and_when_its_time_is_over
        test_expired_sessions_are_taken_away
        test_a_changed_password_ends_the_other_sessions
        test_a_second_factor_is_asked_for_and_each_code_is_good_once
        test_the_configurations_password_is_the_one_that_counts""",
    "M32": """
        test_the_last_use_is_written_once_a_minute
        test_a_bearer_that_is_not_good_is_never_passed_over_for_a_cookie""",
    "M33": """
        test_below_admin_they_are_blotted_out_and_shapes_stay
        test_nor_can_they_be_guessed
        test_no_route_that_they_may_read_tells""",
    "M34": """
        test_not_encrypted_is_for_loopback_alone
        test_sigterm_ends_open_streams_and_the_daemon""",
    "M35": """
        test_a_token_that_is_not_good_any_more_ends_its_stream
        test_tls_and_certificates_of_clients
        test_a_quiet_stream_shows_that_it_lives
        test_who_comes_back_with_a_cursor_misses_nothing_and_gets_nothing_twice
        test_connects_and_disconnects_of_while_the_daemon_was_down_come_from_the_store
        test_a_consumer_that_does_not_read_costs_nothing_and_is_told_what_it_missed
        test_what_admins_alone_may_read_needs_an_admins_token""",
    "M36": """
        test_deleting_takes_peers_from_the_nodes_at_once
        test_a_removed_peer_is_cut_off""",
    "M37": """
        test_looks_are_spread_flat
        test_slow_nodes_do_not_take_every_worker
        test_a_node_that_answers_absurdly_each_time_is_dialled_ever_less_often""",
    "M38": """
        test_an_operators_push_goes_out_under_a_fresh_revision
        test_a_stale_revision_is_no_dead_end""",
    "M39": """
        test_b14_an_idle_node_is_left_alone_and_one_miss_is_no_outage
        test_handshakes_that_ceased_are_healed_once_for_each_silence""",
    "M40": """
        test_a_database_that_was_put_back_is_noticed_whatever_its_numbers_say
        test_peers_that_somebody_changed_on_the_node_are_put_right""",
    "M41": "test_b12_a_policy_goes_out_by_itself_and_takes_nothing_of_a_path_along",
    "M42": """
        test_directly_again_only_where_that_is_said
        test_a_path_that_does_not_work_is_not_taken_and_the_hop_is_named
        test_a_hop_that_is_not_fit_any_more_is_refused_and_not_gone_round""",
    "M43": """
        test_the_set_of_tunnels_follows_the_inventory
        test_a_renewed_certificate_is_shown_to_devices
        test_what_is_due_is_renewed_once""",
    "M44": """
        test_commands_are_the_same_over_the_network
        test_every_command_takes_json_and_a_configuration
        test_there_and_back_by_passphrase_and_by_key
        test_a_sound_installation_that_is_stopped
        test_config_check_tells_everything""",
    "M45": """
        test_an_unknown_key_is_named_with_those_that_are_known
        test_a_preset_fills_what_the_file_leaves_out
        test_a_list_in_the_environment_may_be_a_yaml_list""",
    "M46": """
        test_sighup_takes_a_sound_file_over_and_leaves_a_bad_one
        test_readiness_names_what_is_down_but_not_the_links
        test_it_has_every_route_with_all_that_it_may_answer""",
    "M47": """
        test_a_node_that_dies_turns_red_everywhere_and_green_again
        test_a_node_is_pushed_looked_at_disabled_and_enabled
        test_a_device_is_provisioned_suspended_resumed_and_revoked
        test_charts_are_readable
        test_a_path_is_planned_built_used_and_removed
        test_the_control_path_is_an_arc_from_the_controller_over_its_relays""",
    "M48": """
        test_every_list_comes_in_pages
        test_pages_follow_each_other_without_gap_or_repeat""",
    "M49": "test_a_node_that_profiles_lead_to_is_not_removed",
}

OPEN: dict[str, str] = {}
"""What is not turned round."""

PARTLY = {
    "10.2-22": "eight characters do unless the operator asks for more: clients of the contract may send no more",
    "10.2-13": "no approval of a claim before its first bundle; relays do not say from where a claim comes, so it is the "
    "first connection of the device that is judged",
    "10.2-14": "the signer comes with the bundle, as existing clients want it: relays have to be trusted with that",
    "10.2-19": "no offline root",
    "C26": "existing agents filter, mark and masquerade IPv4 only, so devices have no IPv6 there; existing clients use none",
    "E33": "a reserve of nodes beyond fallbacks has no effect, and says so; a node behind NAT needs its ports "
    "forwarded; an operator changes decoys, a node at a "
    "time, and no clock does: each is in its clients' bundles, and another drops all of a node's XRay sessions",
    "M17": "the address is that of the TCP peer; behind a proxy, failures are told apart by account only",
    "M21": "a webhook, the live stream and the SIEM stream carry alerts; no mail, no syslog, no CEF",
    "M31": "one role of admins; no WebAuthn",
    "M33": "names of users and addresses of machines are still for whoever may read",
    "M35": "no syslog, CEF or webhook; alerts and audit records that a consumer was too late for are only counted",
}
"""What of those that are shown was recommended, and is not there."""

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
    assert PARTLY.keys() <= SHOWN.keys()


@pytest.mark.parametrize("name", [*SHOWN, *FAULTS])
def test_its_tests_are_there(name: str) -> None:
    tests = (SHOWN | FAULTS)[name].split()
    assert tests
    assert not set(tests) - known_names()
