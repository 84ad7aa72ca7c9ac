// The pulse's state machine on a host that was stopped or suspended: what was slept through is no silence of the
// partner; and datagrams that come late or again say nothing. Exits with 1 on a wrong answer.
#include "pulse_state.h"

#include <cstdio>
#include <cstdlib>

using namespace tandem;

namespace {

constexpr uint64_t kMs = 1000000, kLease = 50 * kMs, kInterval = 10 * kMs;
constexpr uint64_t kHour = 3600000 * kMs;

void expect(bool right, const char *what)
{
	if (right)
		return;
	fprintf(stderr, "wrong: %s\n", what);
	exit(1);
}

PulseState make(uint64_t incarnation, uint64_t now)
{
	PulseSettings settings;
	settings.paths = 2;
	settings.incarnation = incarnation;
	settings.interval_ns = kInterval;
	settings.lease_ns = kLease;
	settings.pet_limit_ns = 24 * kHour;
	settings.drift_ppm = 1000;
	return PulseState(settings, now);
}

bool told(PulseState &state, PulseEvent::Type type)
{
	bool found = false;
	for (const PulseEvent &event : state.take_events())
		found = found || event.type == type;
	return found;
}

/// Lets `state` run for `time` with nobody to hear, as the thread does: at every deadline it names.
bool told_while_running(PulseState &state, uint64_t &now, uint64_t time, PulseEvent::Type type)
{
	bool found = false;
	for (uint64_t end = now + time; now < end;) {
		state.advance(now);
		if (state.heartbeats_due(now))
			state.heartbeat(0, now);
		found = told(state, type) || found;
		uint64_t next = state.next_deadline();
		expect(next > now, "a deadline lies ahead");
		now = next;
	}
	return found;
}

/// One heartbeat from `from` by a path, answered, the answer taken in.
void exchange(PulseState &from, PulseState &to, size_t path, uint64_t now)
{
	std::optional<PulseMessage> answer = to.receive(path, from.heartbeat(path, now), now);
	expect(answer.has_value(), "a fresh heartbeat is answered");
	from.receive(path, *answer, now);
}

/// One is active, and the other one grants.
void make_pair(PulseState &active, PulseState &standby, uint64_t now)
{
	active.say(TD_ROLE_ACTIVE, 3, 0);
	standby.say(TD_ROLE_STANDBY, 3, 0);
	standby.grant(true, false, now);
}

void a_thawed_active_does_not_conclude_silence()
{
	uint64_t now = 5 * kHour;
	PulseState active = make(1, now), standby = make(2, now);
	make_pair(active, standby, now);
	active.hold(true, 0);
	exchange(active, standby, 0, now);
	exchange(standby, active, 0, now);
	active.advance(now);
	expect(active.take_voice() == now + kLease, "a grant gives the voice");
	active.take_events();

	now += kHour;
	active.advance(now);
	std::vector<PulseEvent> events = active.take_events();
	bool lost = false, silent = false, down = false;
	for (const PulseEvent &event : events) {
		lost = lost || event.type == PulseEvent::Type::voice_lost;
		silent = silent || event.type == PulseEvent::Type::silent;
		down = down || (event.type == PulseEvent::Type::path && !event.up);
	}
	expect(lost, "the voice ends by the clock, asleep or not");
	expect(!silent && !down, "an hour asleep is no silence");
	expect(!told_while_running(active, now, kLease / 2, PulseEvent::Type::silent), "nor is half a lease awake");
	expect(told_while_running(active, now, kLease, PulseEvent::Type::silent), "a lease awake is");
}

void a_thawed_standby_does_not_take_over_at_once()
{
	uint64_t now = 5 * kHour;
	PulseState active = make(1, now), standby = make(2, now);
	make_pair(active, standby, now);
	exchange(active, standby, 0, now);
	standby.advance(now);
	standby.take_events();

	now += kHour;
	standby.advance(now);
	expect(!told(standby, PulseEvent::Type::expired) && standby.granting(), "asleep, nothing runs out");
	expect(!told_while_running(standby, now, kLease / 2, PulseEvent::Type::expired), "nor in half a lease awake");
	uint64_t woken = now;
	expect(told_while_running(standby, now, 2 * kLease, PulseEvent::Type::expired), "a lease awake and unheard");
	expect(now > woken && !standby.granting(), "expiry revokes");
}

/// When the standby's grants have run out: since when the active may have been unheard, as long before as that.
uint64_t unheard(PulseState &standby, uint64_t &now)
{
	for (uint64_t end = now + 2 * kLease; now < end; now += kInterval) {
		standby.advance(now);
		for (const PulseEvent &event : standby.take_events())
			if (event.type == PulseEvent::Type::expired)
				return event.at_ns - event.last_ns;
	}
	expect(false, "the grants run out");
	return 0;
}

void a_standby_that_waits_for_an_arbiter_has_not_stood_still()
{
	for (uint64_t asleep : {uint64_t{0}, 3 * kInterval, 4 * kLease}) {
		uint64_t now = 5 * kHour;
		PulseState active = make(1, now), standby = make(2, now);
		make_pair(active, standby, now);
		exchange(active, standby, 0, now);
		now += asleep;
		// Refused again and again: its lease is listened through each time.
		for (int refused = 0; refused < 20; refused++) {
			bool stood_still = unheard(standby, now) > 3 * kLease;
			expect(stood_still == (asleep > 2 * kLease), "only what was slept through was not listened to");
			standby.grant(true, true, now);
		}
	}
}

void ordinary_lateness_delays_nothing()
{
	uint64_t start = 5 * kHour;
	PulseState active = make(1, start), standby = make(2, start);
	make_pair(active, standby, start);
	exchange(active, standby, 0, start);
	bool expired = false;
	uint64_t now = start;
	for (; !expired && now < start + kHour; now += kInterval + kInterval / 2) {
		standby.advance(now);
		expired = told(standby, PulseEvent::Type::expired);
	}
	expect(now < start + kLease + 3 * kInterval, "a thread that is half an interval late takes over in time");
}

void late_and_repeated_datagrams_say_nothing()
{
	uint64_t now = 5 * kHour;
	PulseState active = make(1, now), standby = make(2, now);
	make_pair(active, standby, now);
	PulseMessage old = active.heartbeat(0, now);
	expect(standby.receive(0, old, now).has_value(), "the first time it counts");
	active.say(TD_ROLE_SOLO, 4, 0);
	PulseMessage newer = active.heartbeat(0, now + kMs);
	expect(standby.receive(0, newer, now + kMs).has_value(), "the newer one counts");
	uint64_t answered = standby.last_answered_ns();
	expect(!standby.receive(0, old, now + 2 * kMs), "the old one again gets no answer, so no grant");
	expect(standby.last_answered_ns() == answered, "and prolongs nothing");
	expect(standby.partner()->role == TD_ROLE_SOLO && standby.partner()->epoch == 4, "what was said last holds");
	PulseMessage other_path = old;
	other_path.path = 1;
	standby.receive(1, other_path, now + 3 * kMs);
	expect(standby.partner()->epoch == 4, "also when it comes late by the other path");
	expect(standby.path(0).refused == 1, "counted");

	// An answer that waited in a queue while its reader was stopped: no voice beyond its own time, and no path up.
	PulseState thawed = make(5, now);
	thawed.say(TD_ROLE_ACTIVE, 3, 0);
	thawed.hold(true, 0);
	PulseState granting = make(6, now);
	granting.say(TD_ROLE_STANDBY, 3, 0);
	granting.grant(true, false, now);
	std::optional<PulseMessage> answer = granting.receive(0, thawed.heartbeat(0, now), now);
	thawed.receive(0, *answer, now + kHour);
	std::optional<uint64_t> voice = thawed.take_voice();
	expect(!voice || *voice == now + kLease, "a grant counts from when it was asked for");
	expect(!thawed.path(0).up, "a path that answered an hour ago is not up for it");
}

} // namespace

int main()
{
	a_thawed_active_does_not_conclude_silence();
	a_thawed_standby_does_not_take_over_at_once();
	a_standby_that_waits_for_an_arbiter_has_not_stood_still();
	ordinary_lateness_delays_nothing();
	late_and_repeated_datagrams_say_nothing();
	puts("silence: as expected");
}
