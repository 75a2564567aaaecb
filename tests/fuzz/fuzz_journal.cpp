// Bytes of the journal of an unfinished conversion.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "convert/journal.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "support/temporary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const mha2mla::test::TemporaryDirectory directory;
    static const nlohmann::ordered_json other = {{"settings", {{"rope", "uniform"}}}, {"version", "1"}};
    mha2mla::test::write_text(directory / "mha2mla.journal.jsonl", {reinterpret_cast<const char*>(data), size});
    const auto journal = mha2mla::read_journal(directory.path());
    if (!journal) return 0;
    if (journal->bytes > size || !journal->fingerprint.is_object()) std::abort();
    (void)mha2mla::differences(journal->fingerprint, other);
    return 0;
}
