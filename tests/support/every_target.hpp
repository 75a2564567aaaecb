#pragma once
/// Tests that run once for each instruction set that the vector loops are compiled for and this processor has.

#include <gtest/gtest.h>

#include "linalg/targets.hpp"
// (targets.hpp comes before any header of Highway.)
#include <hwy/highway.h>

namespace mha2mla::test {

class EveryTarget : public testing::TestWithParam<std::int64_t> {
protected:
    void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
    void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

}  // namespace mha2mla::test

/// Runs the tests of a suite that derives from EveryTarget.
#define MHA2MLA_ON_EVERY_TARGET(Suite)                                   \
    INSTANTIATE_TEST_SUITE_P(                                            \
        , Suite, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()), \
        [](const testing::TestParamInfo<std::int64_t>& tested) { return std::string(hwy::TargetName(tested.param)); })
