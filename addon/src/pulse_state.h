// Who may speak, as a pure state machine: heartbeats and answers in, heartbeats and answers out, time as an argument.
// No clock, no socket, no thread in here; pulse.cc adds them and a lock around every call.
//
// One voice (architecture, section 3). The active may speak until its own *sending* time of a heartbeat + lease, once
// that heartbeat was answered with a grant; the standby counts lease x (1 + drift) from the *receipt* of the last
// heartbeat that it granted. Receipt is after sending, so the active's time is up first, whatever the clocks show.
//
//   standby:  not granting ──grant(true)──► granting ──lease × (1 + drift) without a heartbeat──► not granting, expired
//                  ▲                         │     │                                                ▲
//                  └────────grant(false)─────┘     └──grant(false, watch)──► lease × (1 + drift) ───┘
#pragma once

#include "pulse_wire.h"

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace tandem {

struct PulseSettings {
	size_t paths = 1;
	uint64_t incarnation = 0;
	uint64_t interval_ns = 0;
	uint64_t lease_ns = 0;
	uint64_t pet_limit_ns = 0;
	uint32_t drift_ppm = 0;
};

struct PartnerView {
	uint8_t role = 0;
	uint32_t epoch = 0;
	uint32_t flags = 0;
	uint64_t incarnation = 0;
	uint64_t at_ns = 0;
};

struct PathView {
	bool up = false; // it carries both ways: a heartbeat of ours was answered by it within a lease
	uint64_t last_heard_ns = 0;
	uint64_t rtt_ns = 0;
	uint64_t sent = 0;
	uint64_t received = 0;
	uint64_t refused = 0;
};

struct PulseEvent {
	enum class Type { partner, silent, path, expired, voice_lost, pet_missed } type;
	PartnerView partner = {}; // partner
	size_t path = 0; // path
	bool up = false; // path
	uint64_t last_ns = 0; // silent: last heard; expired: last answered, awake; voice_lost: until
	uint64_t at_ns = 0; // expired
};

class PulseState {
public:
	/// Not granting, not holding. The last answer counts as given now: a predecessor may have granted until just before.
	PulseState(const PulseSettings &settings, uint64_t now);

	void say(uint8_t role, uint32_t epoch, uint32_t flags);
	/// Expiry is counted from the first grant on: until it was given the partner speaks by its own right (SOLO), and a
	/// partner that is slow to become active must not be taken over from. `watch`: expiry is counted in any case, from
	/// now if nothing was granted yet; without `on` nothing more is granted meanwhile.
	void grant(bool on, bool watch, uint64_t now);
	/// `voice_until_ns`: what is in force at this moment.
	void hold(bool on, uint64_t voice_until_ns);
	/// True when this ends a silence for want of petting.
	bool pet(uint64_t now);

	/// True once every interval, when heartbeats are due; false while not petted.
	bool heartbeats_due(uint64_t now);
	/// The next heartbeat for a path, noted as sent at `now`.
	PulseMessage heartbeat(size_t path, uint64_t now);
	/// Takes in what came by a path, and returns the answer to send there, if any. Let it see what is waiting in the
	/// sockets before advance(): a standby that overslept its deadline then goes on granting instead of taking over
	/// from a living active. That is as safe: the lease counts from this receipt, and the sending was before it.
	std::optional<PulseMessage> receive(size_t path, const std::optional<PulseMessage> &message, uint64_t now);
	/// Lets time pass: expiry, silence, voice, petting. Silence is what was listened to: time between two calls that
	/// is longer than a thread at work needs (a stopped process, a suspended host) is not counted as silence of the
	/// partner, neither for taking over from it nor for going on alone. The voice, in contrast, ends by the clock.
	void advance(uint64_t now);
	/// The earliest moment at which advance() or heartbeats_due() have something to do.
	uint64_t next_deadline() const;

	/// Voice won by answers since the last call: the later of them, or nothing.
	std::optional<uint64_t> take_voice();
	std::vector<PulseEvent> take_events();

	bool granting() const { return granting_; }
	bool muted() const { return muted_; }
	uint64_t last_answered_ns() const { return last_answered_; }
	const std::optional<PartnerView> &partner() const { return partner_; }
	const PathView &path(size_t index) const { return paths_[index].view; }
	/// Counts a datagram that was refused before it could be read.
	void refused(size_t path) { paths_[path].view.refused++; }

private:
	struct Sent {
		uint64_t sequence = 0;
		uint64_t sent_ns = 0;
		uint32_t epoch = 0;
		size_t path = 0;
		bool as_active = false;
	};
	struct Path {
		PathView view;
		uint64_t answered_since = 0; // the last answer, later by what was overslept
		uint64_t partner_sequence = 0; // of the newest heartbeat that came by it
	};

	bool accept(size_t path, const PulseMessage &message, uint64_t now);
	bool accept_heartbeat(size_t path, const PulseMessage &message, uint64_t now);
	bool accept_answer(size_t path, const PulseMessage &message, uint64_t now);
	void heard(size_t path, uint64_t now);
	void expire(uint64_t now);
	void take_off_overslept(uint64_t now);
	uint64_t grant_deadline() const;
	bool is_retired(uint64_t incarnation) const;

	PulseSettings settings_;
	uint8_t role_ = TD_ROLE_FENCED;
	uint32_t epoch_ = 0;
	uint32_t flags_ = 0;
	bool granting_ = false;
	bool granted_ = false; // since granting began, an active has been given a grant, which can run out
	bool holding_ = false;
	bool muted_ = false; // nobody petted us
	bool silent_ = false;
	uint64_t last_answered_;
	uint64_t expiry_since_; // last_answered_, later by what was overslept
	uint64_t last_heard_ = 0;
	uint64_t silence_since_; // the last time anything was heard, or the start; later by what was overslept
	uint64_t advanced_; // the last advance()
	// Oversleeping since the partner is known to have heard us last. Of times between which no lease was listened through
	// the whole counts as one: the longest one, and the last one's beginning and end.
	uint64_t longest_sleep_ = 0;
	uint64_t slept_from_ = 0;
	uint64_t woke_ = 0;
	uint64_t last_pet_;
	uint64_t next_heartbeat_;
	uint64_t next_sequence_ = 1;
	uint64_t voice_until_ = 0; // 0: none, or its loss was told
	std::optional<uint64_t> new_voice_;
	std::optional<PartnerView> partner_;
	uint64_t partner_sequence_ = 0; // of the newest heartbeat on any path
	std::array<uint64_t, 8> retired_ =
		{}; // former incarnations of the partner; late datagrams of theirs are refused
	size_t retired_next_ = 0;
	std::array<Sent, 256> sent_ = {}; // by sequence modulo size
	std::vector<Path> paths_;
	std::vector<PulseEvent> events_;
};

} // namespace tandem
