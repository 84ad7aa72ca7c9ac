// Who may speak, as a pure state machine; the rules are in pulse_state.h.
#include "pulse_state.h"

#include <algorithm>

namespace tandem {

PulseState::PulseState(const PulseSettings &settings, uint64_t now)
    : settings_(settings),
      last_answered_(now),
      expiry_since_(now),
      silence_since_(now),
      advanced_(now),
      last_pet_(now),
      next_heartbeat_(now),
      paths_(settings.paths)
{
}

void PulseState::say(uint8_t role, uint32_t epoch, uint32_t flags)
{
	role_ = role;
	epoch_ = epoch;
	flags_ = flags & ~static_cast<uint32_t>(TD_PULSE_GRANT); // only an answer of granting() carries that
}

void PulseState::grant(bool on, bool watch, uint64_t now)
{
	if (!granted_ || (on && !granting_))
		last_answered_ = expiry_since_ = now;
	// Nothing can run out that nobody has been given.
	if ((on && !granting_) || !(on || watch))
		granted_ = false;
	granted_ = granted_ || watch;
	granting_ = on;
}

void PulseState::hold(bool on, uint64_t voice_until_ns)
{
	holding_ = on;
	voice_until_ = on ? voice_until_ns : 0;
	new_voice_.reset();
}

bool PulseState::pet(uint64_t now)
{
	last_pet_ = now;
	bool was_muted = muted_;
	if (was_muted) {
		muted_ = false;
		next_heartbeat_ = now;
	}
	return was_muted;
}

bool PulseState::heartbeats_due(uint64_t now)
{
	if (muted_ || now < next_heartbeat_)
		return false;
	// Keeps the beat, but never tries to catch up what a stopped process missed.
	next_heartbeat_ += settings_.interval_ns;
	if (next_heartbeat_ <= now)
		next_heartbeat_ = now + settings_.interval_ns;
	return true;
}

PulseMessage PulseState::heartbeat(size_t path, uint64_t now)
{
	PulseMessage message;
	message.kind = TD_PULSE_HEARTBEAT;
	message.path = static_cast<uint8_t>(path);
	message.role = role_;
	message.epoch = epoch_;
	message.flags = flags_;
	message.incarnation = settings_.incarnation;
	message.sequence = next_sequence_++;
	message.sent_ns = now;
	message.lease_ns = settings_.lease_ns;
	sent_[message.sequence % sent_.size()] = {message.sequence, now, epoch_, path, role_ == TD_ROLE_ACTIVE};
	paths_[path].view.sent++;
	return message;
}

std::optional<PulseMessage> PulseState::receive(size_t path, const std::optional<PulseMessage> &message, uint64_t now)
{
	if (!message || message->path != path || message->incarnation == settings_.incarnation ||
	    is_retired(message->incarnation) || !accept(path, *message, now)) {
		paths_[path].view.refused++;
		return std::nullopt;
	}
	paths_[path].view.received++;
	if (message->kind != TD_PULSE_HEARTBEAT || muted_)
		return std::nullopt;

	PulseMessage answer;
	answer.kind = TD_PULSE_ANSWER;
	answer.path = message->path;
	answer.role = role_;
	answer.epoch = epoch_;
	answer.flags = flags_;
	answer.incarnation = settings_.incarnation;
	answer.sequence = message->sequence;
	answer.sent_ns = message->sent_ns;
	answer.lease_ns = settings_.lease_ns;
	answer.echo_incarnation = message->incarnation;
	if (granting_ && message->role == TD_ROLE_ACTIVE && message->epoch == epoch_) {
		answer.flags |= TD_PULSE_GRANT;
		granted_ = true;
		last_answered_ = expiry_since_ = now;
	}
	return answer;
}

bool PulseState::accept(size_t path, const PulseMessage &message, uint64_t now)
{
	return message.kind == TD_PULSE_HEARTBEAT ? accept_heartbeat(path, message, now)
						  : accept_answer(path, message, now);
}

bool PulseState::accept_heartbeat(size_t path, const PulseMessage &message, uint64_t now)
{
	bool changed = !partner_ || partner_->incarnation != message.incarnation;
	if (changed) {
		if (partner_) {
			retired_[retired_next_] = partner_->incarnation;
			retired_next_ = (retired_next_ + 1) % retired_.size();
		}
		partner_sequence_ = 0;
		for (Path &each : paths_)
			each.partner_sequence = 0;
	}
	if (message.sequence <= paths_[path].partner_sequence)
		return false; // duplicated, overtaken or replayed
	paths_[path].partner_sequence = message.sequence;
	bool again = silent_ || !partner_;
	heard(path, now);
	// The two paths may differ in delay: what was sent last is what the partner is.
	if (message.sequence > partner_sequence_) {
		partner_sequence_ = message.sequence;
		changed = changed || partner_->role != message.role || partner_->epoch != message.epoch ||
			  partner_->flags != message.flags;
		partner_ = PartnerView{message.role, message.epoch, message.flags, message.incarnation, now};
	}
	partner_->at_ns = now;
	if (changed || again) {
		PulseEvent event = {PulseEvent::Type::partner};
		event.partner = *partner_;
		events_.push_back(event);
	}
	return true;
}

bool PulseState::accept_answer(size_t path, const PulseMessage &message, uint64_t now)
{
	if (message.echo_incarnation != settings_.incarnation)
		return false;
	const Sent &sent = sent_[message.sequence % sent_.size()];
	if (!sent.sequence || sent.sequence != message.sequence || sent.path != path || sent.sent_ns != message.sent_ns)
		return false;
	PathView &view = paths_[path].view;
	view.rtt_ns = now - sent.sent_ns;
	bool prompt = view.rtt_ns < settings_.lease_ns; // or it waited in a queue while somebody slept
	if (prompt)
		paths_[path].answered_since = now;
	if (prompt && !view.up) {
		view.up = true;
		PulseEvent event = {PulseEvent::Type::path};
		event.path = path;
		event.up = true;
		events_.push_back(event);
	}
	if (sent.sent_ns > woke_)
		longest_sleep_ = slept_from_ = 0; // the partner has heard us since
	bool again = silent_ && partner_ && partner_->incarnation == message.incarnation;
	heard(path, now);
	if (again) {
		partner_->at_ns = now;
		PulseEvent event = {PulseEvent::Type::partner};
		event.partner = *partner_;
		events_.push_back(event);
	}
	// Both ends' leases are configuration and could differ: the shorter one is right for both.
	if (holding_ && !muted_ && (message.flags & TD_PULSE_GRANT) && sent.as_active && sent.epoch == epoch_ &&
	    message.epoch == epoch_) {
		uint64_t until = sent.sent_ns + std::min(settings_.lease_ns, message.lease_ns);
		if (until > voice_until_) {
			voice_until_ = until;
			new_voice_ = until;
		}
	}
	return true;
}

void PulseState::heard(size_t path, uint64_t now)
{
	paths_[path].view.last_heard_ns = now;
	last_heard_ = now;
	silence_since_ = now;
	silent_ = false;
}

uint64_t PulseState::grant_deadline() const
{
	uint64_t drift = static_cast<uint64_t>(static_cast<double>(settings_.lease_ns) * settings_.drift_ppm / 1e6) + 1;
	return expiry_since_ + settings_.lease_ns + drift;
}

void PulseState::expire(uint64_t now)
{
	granting_ = granted_ = false;
	PulseEvent event = {PulseEvent::Type::expired};
	// Whoever has not been listened to for the longest, and then for a lease. An active that is silent for good does not
	// become one that may have gone on unheard because its standby waits for the arbiter.
	event.last_ns = longest_sleep_ ? std::min(now - settings_.lease_ns - longest_sleep_, last_answered_)
				       : last_answered_;
	event.at_ns = now;
	events_.push_back(event);
}

void PulseState::take_off_overslept(uint64_t now)
{
	// Some lateness is ordinary scheduling; a beat is due each interval.
	uint64_t before = advanced_;
	uint64_t ordinary = before + 2 * settings_.interval_ns;
	advanced_ = now;
	if (now <= ordinary)
		return;
	if (!slept_from_ || before > woke_ + settings_.lease_ns)
		slept_from_ = before;
	woke_ = now;
	longest_sleep_ = std::max(longest_sleep_, woke_ - slept_from_);
	uint64_t overslept = now - ordinary;
	expiry_since_ = std::min(now, expiry_since_ + overslept);
	silence_since_ = std::min(now, silence_since_ + overslept);
	for (Path &path : paths_)
		path.answered_since = std::min(now, path.answered_since + overslept);
}

void PulseState::advance(uint64_t now)
{
	take_off_overslept(now);
	if (granted_ && now >= grant_deadline())
		expire(now);
	for (size_t index = 0; index < paths_.size(); index++) {
		Path &path = paths_[index];
		if (!path.view.up || now < path.answered_since + settings_.lease_ns)
			continue;
		path.view.up = false;
		PulseEvent event = {PulseEvent::Type::path};
		event.path = index;
		events_.push_back(event);
	}
	if (!silent_ && now >= silence_since_ + settings_.lease_ns) {
		silent_ = true;
		PulseEvent event = {PulseEvent::Type::silent};
		event.last_ns = last_heard_;
		events_.push_back(event);
	}
	if (holding_ && voice_until_ && now >= voice_until_) {
		PulseEvent event = {PulseEvent::Type::voice_lost};
		event.last_ns = voice_until_;
		events_.push_back(event);
		voice_until_ = 0;
	}
	if (!muted_ && now >= last_pet_ + settings_.pet_limit_ns) {
		muted_ = true;
		events_.push_back({PulseEvent::Type::pet_missed});
	}
}

uint64_t PulseState::next_deadline() const
{
	uint64_t next = UINT64_MAX;
	if (!muted_)
		next = std::min(next_heartbeat_, last_pet_ + settings_.pet_limit_ns);
	// While silence is listened for, as often as take_off_overslept() expects.
	if (granted_)
		next = std::min({next, grant_deadline(), advanced_ + settings_.interval_ns});
	if (!silent_)
		next = std::min({next, silence_since_ + settings_.lease_ns, advanced_ + settings_.interval_ns});
	if (holding_ && voice_until_)
		next = std::min(next, voice_until_);
	for (const Path &path : paths_) {
		if (path.view.up)
			next = std::min(next, path.answered_since + settings_.lease_ns);
	}
	return next;
}

std::optional<uint64_t> PulseState::take_voice()
{
	std::optional<uint64_t> voice = new_voice_;
	new_voice_.reset();
	return voice;
}

std::vector<PulseEvent> PulseState::take_events()
{
	std::vector<PulseEvent> events;
	events.swap(events_);
	return events;
}

bool PulseState::is_retired(uint64_t incarnation) const
{
	return std::find(retired_.begin(), retired_.end(), incarnation) != retired_.end();
}

} // namespace tandem
