#pragma once
// The prompts of LongBench, word for word: LongBench/config/dataset2prompt.json of https://github.com/THUDM/LongBench
// at 2e00731f8d0bff23dc4325161044d0ed8af94c1e. Their licence:
//
// MIT License
//
// Copyright (c) 2023 THU-KEG & Zhipu AI
//
// Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
// documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
// rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
// permit persons to whom the Software is furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
// Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
// WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
// COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
// OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

#include <string_view>

namespace mha2mla::longbench {

inline constexpr std::string_view kNarrativeqaPrompt =
    "You are given a story, which can be either a novel or a movie script, and a question. Answer the "
    "question asconcisely as you can, using a single phrase if possible. Do not provide any explanation.\n"
    "\n"
    "Story: {context}\n"
    "\n"
    "Now, answer the question based on the story asconcisely as you can, using a single phrase if possible. "
    "Do not provide any explanation.\n"
    "\n"
    "Question: {input}\n"
    "\n"
    "Answer:";

inline constexpr std::string_view kQasperPrompt =
    "You are given a scientific article and a question. Answer the question as concisely as you can, using a "
    "single phrase or sentence if possible. If the question cannot be answered based on the information in "
    "the article, write \"unanswerable\". If the question is a yes/no question, answer \"yes\", \"no\", or "
    "\"unanswerable\". Do not provide any explanation.\n"
    "\n"
    "Article: {context}\n"
    "\n"
    " Answer the question based on the above article as concisely as you can, using a single phrase or "
    "sentence if possible. If the question cannot be answered based on the information in the article, write "
    "\"unanswerable\". If the question is a yes/no question, answer \"yes\", \"no\", or \"unanswerable\". Do "
    "not provide any explanation.\n"
    "\n"
    "Question: {input}\n"
    "\n"
    "Answer:";

inline constexpr std::string_view kMultiFieldQaPrompt =
    "Read the following text and answer briefly.\n"
    "\n"
    "{context}\n"
    "\n"
    "Now, answer the following question based on the above text, only give me the answer and do not output "
    "any other words.\n"
    "\n"
    "Question: {input}\n"
    "Answer:";

inline constexpr std::string_view kMultiDocumentPrompt =
    "Answer the question based on the given passages. Only give me the answer and do not output any other "
    "words.\n"
    "\n"
    "The following are given passages.\n"
    "{context}\n"
    "\n"
    "Answer the question based on the given passages. Only give me the answer and do not output any other "
    "words.\n"
    "\n"
    "Question: {input}\n"
    "Answer:";

inline constexpr std::string_view kGovReportPrompt =
    "You are given a report by a government agency. Write a one-page summary of the report.\n"
    "\n"
    "Report:\n"
    "{context}\n"
    "\n"
    "Now, write a one-page summary of the report.\n"
    "\n"
    "Summary:";

inline constexpr std::string_view kQmsumPrompt =
    "You are given a meeting transcript and a query containing a question or instruction. Answer the query "
    "in one or more sentences.\n"
    "\n"
    "Transcript:\n"
    "{context}\n"
    "\n"
    "Now, answer the query based on the above meeting transcript in one or more sentences.\n"
    "\n"
    "Query: {input}\n"
    "Answer:";

inline constexpr std::string_view kMultiNewsPrompt =
    "You are given several news passages. Write a one-page summary of all news. \n"
    "\n"
    "News:\n"
    "{context}\n"
    "\n"
    "Now, write a one-page summary of all the news.\n"
    "\n"
    "Summary:";

inline constexpr std::string_view kTrecPrompt =
    "Please determine the type of the question below. Here are some examples of questions.\n"
    "\n"
    "{context}\n"
    "{input}";

inline constexpr std::string_view kTriviaqaPrompt =
    "Answer the question based on the given passage. Only give me the answer and do not output any other "
    "words. The following are some examples.\n"
    "\n"
    "{context}\n"
    "\n"
    "{input}";

inline constexpr std::string_view kSamsumPrompt =
    "Summarize the dialogue into a few short sentences. The following are some examples.\n"
    "\n"
    "{context}\n"
    "\n"
    "{input}";

inline constexpr std::string_view kPassageCountPrompt =
    "There are some paragraphs below sourced from Wikipedia. Some of them may be duplicates. Please "
    "carefully read these paragraphs and determine how many unique paragraphs there are after removing "
    "duplicates. In other words, how many non-repeating paragraphs are there in total?\n"
    "\n"
    "{context}\n"
    "\n"
    "Please enter the final count of unique paragraphs after removing duplicates. The output format should "
    "only contain the number, such as 1, 2, 3, and so on.\n"
    "\n"
    "The final answer is: ";

inline constexpr std::string_view kPassageRetrievalPrompt =
    "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine which paragraph the "
    "abstract is from.\n"
    "\n"
    "{context}\n"
    "\n"
    "The following is an abstract.\n"
    "\n"
    "{input}\n"
    "\n"
    "Please enter the number of the paragraph that the abstract is from. The answer format must be like "
    "\"Paragraph 1\", \"Paragraph 2\", etc.\n"
    "\n"
    "The answer is: ";

inline constexpr std::string_view kLccPrompt =
    "Please complete the code given below. \n"
    "{context}Next line of code:\n";

inline constexpr std::string_view kRepoBenchPrompt =
    "Please complete the code given below. \n"
    "{context}{input}Next line of code:\n";

}  // namespace mha2mla::longbench
