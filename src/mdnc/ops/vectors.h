// Registers of floats, as wide as the processor for which this is compiled has them.

#pragma once

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;  // floats of a register
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4)));

inline Vector load(const float* at) { return *(const Vector*)at; }
inline void store(float* at, Vector value) { *(Vector*)at = value; }

}  // namespace
