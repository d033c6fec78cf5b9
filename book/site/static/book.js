// From file:// the search page may not read other pages for its summaries: do not let it try.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
