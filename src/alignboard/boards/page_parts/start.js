startTable();
if (byId("core")) startCompare();
else document.documentElement.dataset.ready = "";
