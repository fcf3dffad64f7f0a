//! The contract of `io::Driver`, once, run over every driver. A new driver brings a [`rig::Rig`] and one line below.
//!
//! Nothing here sleeps: a test polls until what it waits for has come, and fails when the driver's own clock says that
//! it will not. Only the absence of something is looked for over a fixed, short time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod accepting;
mod exhausting;
mod installing;
mod kernel;
mod measuring;
mod receiving;
mod rig;
mod rings;
mod sending;
mod sim;
mod waking;
mod watching;

/// All contract tests for one rig.
macro_rules! contract {
    ($name:ident, $rig:ty, { $($module:ident :: { $($test:ident),+ $(,)? })+ }) => {
        mod $name {
            $($(
                #[test]
                fn $test() {
                    crate::$module::$test::<$rig>();
                }
            )+)+
        }
    };
    ($name:ident, $rig:ty) => {
        contract!($name, $rig, {
            accepting::{
                a_peer_is_accepted_with_its_address,
                accepting_stops_when_asked_and_loses_nobody,
                a_closed_listeners_address_can_be_bound_again_at_once,
                two_drivers_share_an_address_when_asked_to,
                an_address_in_use_is_an_error,
                a_thousand_peers_are_accepted_and_served,
                a_connection_can_be_opened,
                a_refused_connection_fails,
                many_connections_are_opened_at_once,
                a_port_that_is_taken_towards_the_same_remote_fails,
            }
            receiving::{
                bytes_are_received_and_echoed_by_a_guest,
                bytes_are_received_and_echoed_by_an_installed_slot,
                a_receive_that_finds_nothing_would_block,
                a_full_block_says_that_there_is_more,
                an_ended_peer_is_received_as_zero_bytes,
                a_reset_peer_is_an_error,
                bytes_before_the_peers_end_are_received_first,
            }
            sending::{
                a_shared_segment_is_sent_and_comes_back_unadvanced,
                a_part_of_a_block_is_sent,
                a_large_segment_is_sent_in_parts_without_loss,
                a_blocked_send_completes_when_the_peer_reads,
                a_shutdown_ends_a_blocked_send,
                a_reset_ends_a_blocked_send,
                a_send_after_shutdown_fails,
                a_shutdown_tells_the_peer_and_can_be_repeated,
                segments_that_announce_more_all_arrive,
                a_blocked_sender_still_receives,
                a_driver_dropped_with_a_blocked_send_ends_its_sockets,
            }
            watching::{
                a_watch_says_ready_again_and_again,
                a_watch_says_ready_for_what_came_before_it,
                a_watch_says_ready_at_the_peers_end,
                a_watch_once_says_ready_once,
                a_watch_once_can_be_armed_again,
                a_watch_once_is_told_of_what_came_while_nobody_watched,
                a_peers_end_right_behind_its_bytes_is_not_missed,
                a_watch_once_can_be_ended_before_it_fires,
                an_unwatch_ends_a_watch_exactly_once,
                an_unwatch_after_the_end_says_nothing,
                an_unwatch_with_a_busy_peer_still_ends_the_watch,
                a_slot_can_be_watched_again_after_an_unwatch,
                a_paused_slot_loses_nothing,
                a_slot_must_not_be_closed_while_it_is_watched,
            }
            installing::{
                a_socket_moves_between_drivers_without_loss,
                a_guest_that_stays_is_watched_like_any_other_socket,
                a_guest_that_was_to_stay_may_go_elsewhere,
                a_guest_that_comes_back_at_once_loses_nothing,
                every_install_of_a_batch_gets_its_own_slot,
                installs_spill_over_small_tables_and_places_are_used_again,
                a_slot_is_free_for_the_next_socket_after_its_close,
                closing_tells_the_peer,
                open_slots_are_counted,
            }
            waking::{
                a_wake_from_another_thread_ends_a_wait,
                a_wake_before_the_wait_is_not_lost,
                a_wake_ends_one_wait_only,
                a_wait_ends_at_its_deadline,
                no_wait_returns_at_once,
                completions_beyond_the_bound_wait_for_the_next_poll,
            }
        });
    };
}

contract!(epoll, crate::kernel::Epoll);
contract!(uring, crate::kernel::Uring);
contract!(sim_level, crate::sim::SimLevel);
contract!(sim_edge, crate::sim::SimEdge);
contract!(sim_slow, crate::sim::SimSlow);
contract!(urgent_epoll, crate::kernel::Epoll, { watching::{ bytes_behind_an_urgent_one_are_not_missed } });
contract!(urgent_uring, crate::kernel::Uring, { watching::{ bytes_behind_an_urgent_one_are_not_missed } });
contract!(flush_epoll, crate::kernel::Epoll, { sending::{ a_flushed_send_has_left_before_the_next_poll } });
contract!(flush_uring, crate::kernel::Uring, { sending::{ a_flushed_send_has_left_before_the_next_poll } });
