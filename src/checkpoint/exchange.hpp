#pragma once
/// How the files of a new checkpoint take the place of an older one's, so that a failure leaves one of the two whole.
///
/// New files wait in a hidden directory of the output, `staging`. When all are complete and flushed it is renamed to
/// `ready`: from then on the output is whole, and whatever ends the process, finish_exchange() can do the rest. What
/// the new files replace is moved into `replacing`, which is renamed to `replaced` when that is done, so that it is
/// known which weights in the output are new. Then the new files are moved out of `ready`, config.json last, and
/// `replaced` is removed. All these directories are in the output itself, where files can be renamed.

#include <filesystem>
#include <string_view>

namespace mha2mla {

[[nodiscard]] std::filesystem::path staging_path(const std::filesystem::path& directory);
/// Whether the name is that of one of the directories above.
[[nodiscard]] bool is_exchange_name(std::string_view name);
/// Whether a file belongs to the weights of a checkpoint: a shard of this name, or their index.
[[nodiscard]] bool is_weight_file(std::string_view name);

/// Moves the files that wait in `directory` to their names, and out of the way older weights, the other files that the
/// record of an older output names, and what an unfinished one has. If that fails, all is moved back, so that the older
/// files are what they were and the new ones wait again.
/// @return empty, or what could not be removed after the new files were in place.
/// @throws Error{io} where the new files are not in place.
[[nodiscard]] std::string exchange(const std::filesystem::path& directory);

/// Whether an exchange began in `directory` and is not at its end.
[[nodiscard]] bool exchange_began(const std::filesystem::path& directory);
/// Goes on with an exchange that was interrupted, to its end. Nobody else may be at it. @throws Error{io}
void finish_exchange(const std::filesystem::path& directory);

}  // namespace mha2mla
