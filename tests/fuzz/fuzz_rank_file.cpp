// Bytes of a rank file. A file that is accepted must be equal after writing and reading it again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "mha2mla/error.hpp"
#include "mha2mla/rope.hpp"
#include "support/temporary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const mha2mla::test::MemoryFile file({reinterpret_cast<const char*>(data), size});
    mha2mla::PairRanks ranks;
    try {
        ranks = mha2mla::read_rank_file(file.path());
    } catch (const mha2mla::Error&) {
        return 0;
    }
    const mha2mla::test::MemoryFile again(mha2mla::rank_file_bytes(ranks));
    if (mha2mla::read_rank_file(again.path()).values != ranks.values) std::abort();
    return 0;
}
