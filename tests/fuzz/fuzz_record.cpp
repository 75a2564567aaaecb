// Bytes of the record of a conversion: what is found in it, and the model card that is made of it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "convert/record.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/record.hpp"
#include "support/temporary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const mha2mla::test::TemporaryDirectory directory;
    mha2mla::test::write_text(directory / "config.json", "{}");
    mha2mla::test::write_text(directory / "mha2mla.json", {reinterpret_cast<const char*>(data), size});
    const auto fingerprint = mha2mla::fingerprint_at(directory.path());
    (void)mha2mla::finished_conversion(directory.path(), fingerprint);
    (void)mha2mla::measurement_at(directory.path());
    const auto record = mha2mla::read_record(directory.path());
    if (!record) return 0;
    try {
        (void)mha2mla::with_errors([&] { return mha2mla::model_card(*record); });
    } catch (const mha2mla::Error&) {
    }
    return 0;
}
