// Typed access to the arguments and options that JavaScript passes; a wrong type is a TypeError with the name in it.
#pragma once

#include "errors.h"
#include "ip_address.h"

#include <napi.h>

#include <cstdint>
#include <cstring>
#include <string>

namespace tandem {

/// A view of a Uint8Array's bytes; valid as long as the JavaScript value is.
struct Bytes {
	uint8_t *data;
	size_t length;
};

[[noreturn]] inline void wrong_type(Napi::Env env, const std::string &name, const char *expected)
{
	throw Napi::TypeError::New(env, name + " must be " + expected);
}

inline Bytes as_bytes(const Napi::Value &value, const std::string &name)
{
	if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
		wrong_type(value.Env(), name, "a Uint8Array");
	auto array = value.As<Napi::Uint8Array>();
	return {array.Data(), array.ByteLength()};
}

inline std::string as_text(const Napi::Value &value, const std::string &name)
{
	if (!value.IsString())
		wrong_type(value.Env(), name, "a string");
	return value.As<Napi::String>().Utf8Value();
}

inline IpAddress as_ip(const Napi::Value &value, const std::string &name)
{
	std::string text = as_text(value, name);
	std::optional<IpAddress> address = parse_ip(text);
	if (!address)
		fail(value.Env(), EINVAL, name, "no IP address: " + text);
	return *address;
}

inline Napi::Object as_object(const Napi::Value &value, const std::string &name)
{
	if (!value.IsObject())
		wrong_type(value.Env(), name, "an object");
	return value.As<Napi::Object>();
}

inline Napi::Function as_function(const Napi::Value &value, const std::string &name)
{
	if (!value.IsFunction())
		wrong_type(value.Env(), name, "a function");
	return value.As<Napi::Function>();
}

inline bool as_flag(const Napi::Value &value, const std::string &name)
{
	if (!value.IsBoolean())
		wrong_type(value.Env(), name, "a boolean");
	return value.As<Napi::Boolean>().Value();
}

inline int64_t as_number(const Napi::Value &value, const std::string &name)
{
	if (!value.IsNumber())
		wrong_type(value.Env(), name, "a number");
	return value.As<Napi::Number>().Int64Value();
}

/// A whole number that fits 32 unsigned bits; throws RangeError otherwise.
inline uint32_t as_u32(const Napi::Value &value, const std::string &name)
{
	int64_t number = as_number(value, name);
	if (number < 0 || number > UINT32_MAX)
		throw Napi::RangeError::New(value.Env(), name + " must be within 0 .. 2^32-1");
	return static_cast<uint32_t>(number);
}

inline int as_fd(const Napi::Value &value, const std::string &name = "descriptor")
{
	int64_t number = as_number(value, name);
	if (number < 0 || number > INT32_MAX)
		throw Napi::RangeError::New(value.Env(), name + " must not be negative");
	return static_cast<int>(number);
}

/// A BigInt within 64 unsigned bits; throws RangeError otherwise.
inline uint64_t as_u64(const Napi::Value &value, const std::string &name)
{
	if (!value.IsBigInt())
		wrong_type(value.Env(), name, "a bigint");
	bool lossless = false;
	uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
	if (!lossless)
		throw Napi::RangeError::New(value.Env(), name + " must be within 0 .. 2^64-1");
	return number;
}

inline bool is_absent(const Napi::Value &value)
{
	return value.IsUndefined() || value.IsNull();
}

/// A fresh Uint8Array with a copy of the bytes.
inline Napi::Uint8Array copy_bytes(Napi::Env env, const void *data, size_t length)
{
	auto array = Napi::Uint8Array::New(env, length);
	if (length)
		memcpy(array.Data(), data, length);
	return array;
}

template <typename Callable> void add_function(Napi::Object target, const char *name, Callable callable)
{
	target.Set(name, Napi::Function::New(target.Env(), callable, name));
}

} // namespace tandem
